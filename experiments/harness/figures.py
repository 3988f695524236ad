"""Figures of a run, as PNG and SVG beside its results."""

import pathlib

import matplotlib
import matplotlib.figure

from experiments.harness.files import write_whole
from experiments.harness.tracking import Tracker
from phantom_jax import Phantom2D, Report, core_cycles, plotting
from phantom_jax.workloads import Workload

_MOST_CORES = 1 << 12  # of a mesh whose map can be read


def write_figures(
    directory: pathlib.Path,
    report: Report,
    workload: Workload,
    arch: Phantom2D,
    layer: str | None,
    tracker: Tracker,
) -> list[str]:
    """Writes the cycle stack, the speed-ups, and the map of the mesh for one layer.

    Args:
        directory: Where to.
        report: The results.
        workload: What was simulated, for the layer's masks.
        arch: The accelerator.
        layer: Name of the layer whose rounds are mapped; by default the one of most cycles.
        tracker: Is given the pictures.

    Returns:
        Notes on what was left out.
    """
    tracker.figure("stack", save(plotting.cycle_stack(report), directory / "stack"))
    tracker.figure("speedups", save(plotting.speedups(report), directory / "speedups"))
    if arch.cores > _MOST_CORES:
        return [f"no map of the mesh, whose {arch.cores} cores are too many to show."]
    busiest = max(range(len(workload)), key=lambda index: report.layers[index].cycles[0])
    index = busiest if layer is None else workload.names.index(layer)
    cores = core_cycles(workload[index], arch)
    if not cores.any():
        return [f"no map of the mesh, since {workload.names[index]} has no work."]
    title = f"{workload.names[index]} on {arch.rows} x {arch.cols} cores ({report.layers[index].row_axis})"
    tracker.figure("mesh", save(plotting.mesh(cores, title), directory / "mesh"))
    return []


def save(figure: matplotlib.figure.Figure, path: pathlib.Path) -> pathlib.Path:
    """Saves a figure as PNG and as SVG, each whole or not at all and the same bytes for the same figure.

    Args:
        figure: The figure.
        path: Where to, without a suffix.

    Returns:
        The path of the PNG.
    """
    with matplotlib.rc_context({"svg.hashsalt": "phantom_jax"}):
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            write_whole(
                path.with_suffix(f".{kind}"),
                lambda file, kind=kind, metadata=metadata: figure.savefig(
                    file, format=kind, dpi=100, metadata=metadata
                ),
            )
    return path.with_suffix(".png")
