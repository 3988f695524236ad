"""A tour of the library, from masks to pictures. Runs in seconds and needs no network: python -m docs.tour [DIRECTORY].

Cells are marked with `# %%`, for editors that run them one by one.
"""

# %% Two layers of a network that somebody pruned: here, random numbers of which small ones are dropped.
import pathlib
import sys

import numpy as np

from phantom_jax import Layer, Phantom2D, core_cycles, simulate, workloads

rng = np.random.default_rng(0)
directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path("outputs/tour")
directory.mkdir(parents=True, exist_ok=True)


def pruned(*shape: int, keep: float) -> np.ndarray:
    """Returns weights of which the `keep` largest share is left."""
    weights = rng.normal(size=shape)
    return np.where(np.abs(weights) >= np.quantile(np.abs(weights), 1 - keep), weights, 0)


images = np.maximum(rng.normal(size=(2, 14, 14, 64)), 0)  # two images after a ReLU: half of them zeros
conv = Layer.conv(pruned(3, 3, 64, 96, keep=0.2), images, strides=2, name="conv")
head = Layer.dense(pruned(400, 10, keep=0.1), np.maximum(rng.normal(size=(2, 400)), 0), name="head")

# %% Count. Results have one entry per image.
report = simulate([conv, head], Phantom2D())
report.print()
print("cycles per image:", report.cycles.tolist())
np.testing.assert_array_equal(np.sum(list(report.stack.values()), axis=0), report.cycles * report.multipliers)

# %% Which parts of the accelerator earn their keep? Take them away one by one.
for name, arch in {
    "as it is": Phantom2D(),
    "in order": Phantom2D(selector="in_order"),
    "lookahead of 9": Phantom2D.preset("phantom_cv"),
    "no level-1 balance": Phantom2D(intra_balance=False),
    "no level-2 balance": Phantom2D(inter_balance=False),
}.items():
    cycles = simulate([conv, head], arch).cycles.sum()
    print(f"{name:>20}: {cycles:6} cycles, {cycles / report.cycles.sum():.2f} of the default")

# %% Does it matter where the zeros are? The same density in four patterns.
network = workloads.Network(
    "one layer",
    "this tour",
    (workloads.LayerShape("conv", (3, 3, 64, 96), (14, 14, 64)),),
    {"tour": workloads.DensityTable("this tour", "", "", {"conv": 0.25}, {"conv": 0.5})},
)
for pattern in (None, "1:4", "kernel", "channel"):
    drawn = simulate(workloads.SyntheticWorkload(network, weight_pattern=pattern), Phantom2D())
    print(f"{pattern or 'independent':>20}: {drawn.cycles[0]:6} cycles, utilization {drawn.utilization:.2f}")

# %% Pictures: where slots went, and how busy each core was in each round.
from phantom_jax import plotting  # noqa: E402 - needs Matplotlib, which the rest does not

plotting.cycle_stack(report).savefig(directory / "stack.png")
plotting.mesh(core_cycles(conv, Phantom2D()), "conv").savefig(directory / "mesh.png")
print("pictures are in", directory)
