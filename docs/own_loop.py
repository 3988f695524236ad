"""Cycles in a training loop of one's own, in Flax and in plain JAX: python -m docs.own_loop.

Takes half a minute, most of which is compilation. Cells are marked with `# %%`, for editors that run them one by one.
"""

# %% A task: the direction of noisy stripes. Any network and data will do.
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from phantom_jax import Phantom2D, calibrate, simulate
from phantom_jax.sparsity import (
    CycleAware,
    Keep,
    LayerWeights,
    Masked,
    additive_adam,
    cycle_penalty,
    dense_cycles,
    draw_masks,
    exact_cycles,
    first_logits,
    keep_cycles,
)

TARGET, STEPS = 0.4, 500  # cycles that are wanted, as a share of the dense ones
arch = Phantom2D(rows=2, cols=2, inter_balance=False)  # small, as the network; compiles sooner than with balance
rng = np.random.default_rng(0)
labels = rng.integers(0, 4, 512)
angles, phases = labels[:, None, None] * np.pi / 4, rng.uniform(0, 2 * np.pi, (512, 1, 1))
down, right = np.mgrid[:20, :20]
stripes = np.cos(2 * (down * np.sin(angles) + right * np.cos(angles)) + phases)
images = (stripes + rng.normal(0, 0.5, stripes.shape))[..., None].astype(np.float32)


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels of a step."""
    chosen = np.random.default_rng(step).integers(0, len(images), 64)
    return images[chosen], labels[chosen]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% In Flax: the network is masked, keep probabilities have an optimizer of their own, and the rest is as ever.
class Network(nnx.Module):
    """A convolution and a dense layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns logits of the four directions."""
        return self.head(nnx.relu(self.norm(self.conv(images))).mean((1, 2)))


model = Masked(Network(nnx.Rngs(0)), images[:2])
dense = dense_cycles(model.trace(images[:2]), arch)
model.learn(CycleAware().logits(model))
weights = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)
keep = nnx.Optimizer(model, optax.chain(cycle_penalty(dense, TARGET), additive_adam(0.05)), wrt=Keep)


def loss(model: Any, images: jax.Array, labels: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Returns the loss with masks that are drawn."""
    return cross_entropy(model(images, key=key), labels)


@nnx.jit
def step(model: Any, weights: Any, keep: Any, images: Any, labels: Any, key: Any, calibration: Any) -> None:
    """Trains weights and keep probabilities."""
    both = nnx.DiffState(0, nnx.Any(nnx.Param, Keep))
    gradients = nnx.grad(loss, argnums=both)(model, images, labels, key)
    weights.update(model, gradients)
    keep.update(model, gradients, calibration=calibration)


model.train()
calibration = None
for index in range(STEPS):
    if index % 100 == 0:  # activations move as the network learns
        calibration = calibrate(model.trace(images[:1]), arch)
    step(model, weights, keep, *batch(index), jax.random.key(index), calibration)

# %% Masks that meet the target, by what has been learned, chosen again as activations move; what is left is trained.
scores = CycleAware().scores(model, ())
weights = nnx.Optimizer(model, optax.adamw(3e-3), wrt=nnx.Param)
tune = nnx.jit(lambda model, weights, *batch: weights.update(model, nnx.grad(loss)(model, *batch)))
for index in range(200):
    if index % 50 == 0:
        model.set_masks(keep_cycles(scores, model.trace(images[:16]), arch, TARGET * dense))
    tune(model, weights, *batch(STEPS + index))

model.eval()
correct = float((model(images).argmax(-1) == labels).mean())
share = simulate(model.trace(images[:16]), arch).cycles.mean() / dense
print(f"in Flax: {correct:.0%} correct, {float(model.density()):.0%} of the weights, {share:.3f} of the dense cycles")


# %% In plain JAX: logits and masks are dictionaries by the names of layers. The head is left as it is.
def network(params: Any, images: jax.Array) -> jax.Array:
    """Returns logits of the four directions."""
    values = jax.lax.conv_general_dilated(
        images, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(values).mean((1, 2)) @ params["head"]


@jax.jit
def plain_step(params: Any, logits: Any, states: Any, images: Any, labels: Any, key: Any, calibration: Any) -> Any:
    """Trains weights and logits."""

    def masked_loss(params: Any, logits: Any) -> jax.Array:
        return cross_entropy(network(kernels.masked(params, draw_masks(logits, key)), images), labels)

    gradients = jax.grad(masked_loss, argnums=(0, 1))(params, logits)
    updates, first = optimizers[0].update(gradients[0], states[0], params)
    updates_of_logits, second = optimizers[1].update(gradients[1], states[1], logits, calibration=calibration)
    return optax.apply_updates(params, updates), optax.apply_updates(logits, updates_of_logits), (first, second)


keys = jax.random.split(jax.random.key(0), 2)
params: Any = {"conv": jax.random.normal(keys[0], (3, 3, 1, 8)), "head": jax.random.normal(keys[1], (8, 4))}
kernels = LayerWeights.find(network, params, images[:2], leave_out=("head",))
dense = dense_cycles(kernels.layers(params, images[:2]), arch)
logits: Any = jax.tree.map(jnp.float32, first_logits(kernels.of(params)))
optimizers = optax.adam(1e-2), optax.chain(cycle_penalty(dense, TARGET), additive_adam(0.05))
states: Any = optimizers[0].init(params), optimizers[1].init(logits)
for index in range(STEPS):
    if index % 100 == 0:
        calibration = calibrate(kernels.layers(params, images[:1]), arch)
    params, logits, states = plain_step(params, logits, states, *batch(index), jax.random.key(index), calibration)
layers = kernels.layers(params, images[:16])
share = exact_cycles(layers, keep_cycles(logits, layers, arch, TARGET * dense), arch) / dense
print(f"in plain JAX: {float(states[1][0].cycles):.3f} of the dense cycles expected, {share:.3f} of the masks")
