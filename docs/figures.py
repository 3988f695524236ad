"""Draws the pictures of the documentation: `python -m docs.figures [DIRECTORY]`, by default into docs/images.

Stack, speed-ups and the map of the mesh are those of VGG16 at published densities, as `scripts/run` writes them.
"""

import pathlib
import sys

import matplotlib.axes
import matplotlib.figure
import matplotlib.patches
import numpy as np

from experiments.harness.files import save_figure
from phantom_jax import Phantom2D, core_cycles, plotting, simulate, workloads
from phantom_jax.exact import issue_cycles

_DARK, _LIGHT = "#35456c", "white"


def pipeline() -> matplotlib.figure.Figure:
    """Returns the way from masks over a chunk, a block and a PE to the mesh."""
    rng = np.random.default_rng(5)
    kernel, window = rng.random((3, 3)) < 0.6, rng.random((3, 3)) < 0.6
    block = rng.random((6, 3, 3)) < 0.4
    figure = matplotlib.figure.Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=(2.2, 1.4, 2.6, 2.6, 2.4))
    titles = ("masks of one channel", "chunk: their AND", "block of L masks", "PE: entries to cycles", "mesh of cores")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.spines[:].set_visible(False)
    _bits(axes[0], kernel, 0, 0)
    axes[0].text(1.5, -0.6, "kernel", ha="center", fontsize=8)
    axes[0].text(3.75, 1.5, "&", ha="center", va="center", fontsize=14)
    _bits(axes[0], window, 4.5, 0)
    axes[0].text(6, -0.6, "window", ha="center", fontsize=8)
    axes[0].set(xlim=(-0.3, 7.8), ylim=(4.2, -1.2))
    _bits(axes[1], kernel & window, 0, 0)
    for column in range(3):
        axes[1].text(column + 0.5, 3.5, f"c{column}", ha="center", fontsize=8)
    axes[1].set(xlim=(-0.3, 3.3), ylim=(4.2, -1.2))
    for index, mask in enumerate(block):
        _bits(axes[2], mask.T, 3.4 * (index % 3), 4.2 * (index // 3))
        axes[2].text(3.4 * (index % 3) + 1.5, 4.2 * (index // 3) - 0.25, f"l = {index}", ha="center", fontsize=7)
    axes[2].set(xlim=(-0.3, 10.1), ylim=(7.6, -1.2))
    entries = np.array([block[index, index % 3] for index in range(6)])
    issued = issue_cycles(entries.sum(1).tolist(), "out_of_order", 3)
    _bits(axes[3], entries.T, 0, 0)
    for index, cycle in enumerate(issued):
        axes[3].text(index + 0.5, 3.6, str(cycle) if cycle else "-", ha="center", fontsize=9)
        axes[3].text(index + 0.5, -0.3, f"c{index % 3}", ha="center", fontsize=7, color="grey")
    axes[3].text(3, 4.6, "issues in cycle", ha="center", fontsize=8)
    axes[3].set(xlim=(-0.3, 6.3), ylim=(5, -1.2))
    for row in range(7):
        for column in range(4):
            axes[4].add_patch(
                matplotlib.patches.Rectangle(
                    (1.2 * column, 0.8 * row), 1, 0.6, facecolor=_DARK, alpha=0.35 + 0.15 * column
                )
            )
        axes[4].text(
            5, 0.8 * row + 0.45, ("jobs", "filters", "or", "segments")[row - 1] if 1 <= row <= 4 else "", fontsize=8
        )
    axes[4].text(2.3, -0.3, "columns: filters", ha="center", fontsize=8)
    axes[4].set(xlim=(-0.3, 8), ylim=(5.8, -0.9))
    return figure


def _bits(axes: matplotlib.axes.Axes, bits: np.ndarray, left: float, top: float) -> None:
    for (row, column), bit in np.ndenumerate(bits):
        corner = (left + column + 0.06, top + row + 0.06)
        axes.add_patch(
            matplotlib.patches.Rectangle(
                corner, 0.88, 0.88, facecolor=_DARK if bit else _LIGHT, edgecolor="grey", linewidth=0.6
            )
        )


def main(directory: pathlib.Path) -> None:
    """Writes all pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    arch, workload = Phantom2D(), workloads.SyntheticWorkload(workloads.vgg16())
    report = simulate(workload, arch)
    bits = np.random.default_rng(0).random((18, 3, 3)) < 0.45
    for name, figure in {
        "pipeline": pipeline(),
        "block": plotting.block(bits, arch.selector, arch.intra_balance),
        "stack": plotting.cycle_stack(report),
        "speedups": plotting.speedups(report),
        "mesh": plotting.mesh(core_cycles(workload[15], arch), "fc8 of VGG16 on 7 x 4 cores (filters)"),
    }.items():
        save_figure(figure, directory / name)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "images")
