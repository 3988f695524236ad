"""The main command: counts the exact cycles of a workload, prints them per layer and writes results and figures.

`python -m experiments.simulate workload=vgg16 arch=phantom_cv`; the last line printed is the output directory.
"""

import functools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from experiments.harness import command
from experiments.harness.options import check_names
from experiments.harness.run import Run, main

if TYPE_CHECKING:
    import matplotlib.figure

    from experiments.harness.files import Draw
    from phantom_jax import Layer, Phantom2D, Report
    from phantom_jax.workloads import Workload

_MOST_CORES_OF_A_MAP = 1 << 12  # more cannot be read


@main("simulate")
def simulation(run: Run) -> None:
    """Counts the exact cycles of a workload."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from rich.console import Console

    from experiments.harness.workload import load_workload
    from phantom_jax import simulate
    from phantom_jax.checks import boolean, one_of

    check_names(run.options, ("arch", "workload", "figures", "tracking", "seed"))
    of_figures = run.options["figures"]
    check_names(of_figures, ("write", "layer"), group="figures")
    arch, workload = run.arch(), load_workload(run.options)
    layer = of_figures["layer"]
    if layer is not None:
        layer = one_of("figures.layer", str(layer), tuple(workload.names))
    has_figures = boolean("figures.write", of_figures["write"])

    with run.tracked():
        with command.progress() as bar:
            report = simulate(bar.track(workload, description="Counting cycles"), arch)
        rows = report.rows()
        run.csv(rows)
        run.table("layers", rows)
        run.tracker.summarize(summary(report))
        figures, notes = report_figures(report, workload, arch, layer) if has_figures else ({}, [])
        run.figures(figures)
        run.finish({"workload": workload.provenance(), "seed": workload.seed, **report.to_dict()})
    command.note(workload.notes)
    report.print(Console())
    command.note(notes)


def report_figures(
    report: "Report", workload: "Workload", arch: "Phantom2D", layer: str | None
) -> tuple[dict[str, "Draw"], list[str]]:
    """Returns what draws the cycle stack, the speed-ups and the map of the mesh, and notes on what is left out.

    Args:
        report: The results.
        workload: What was simulated, for the layer's masks.
        arch: The accelerator.
        layer: Name of the layer whose rounds are mapped; by default the one of most cycles.
    """
    from phantom_jax import plotting
    from phantom_jax.tables import short

    figures: dict[str, Draw] = {
        "stack": functools.partial(plotting.cycle_stack, report),
        "speedups": functools.partial(plotting.speedups, report),
    }
    if arch.cores > _MOST_CORES_OF_A_MAP:
        return figures, [f"no map of the mesh, whose {arch.cores} cores are too many to show."]
    busiest = max(range(len(workload)), key=lambda index: report.layers[index].cycles[0])
    index = busiest if layer is None else workload.names.index(layer)
    if not report.layers[index].cycles[0]:
        return figures, [f"no map of the mesh, since {workload.names[index]} has no work."]
    title = f"{short(workload.names[index])} on {arch.rows} x {arch.cols} cores ({report.layers[index].row_axis})"
    return {**figures, "mesh": functools.partial(_mesh, workload[index], arch, title)}, []


def _mesh(layer: "Layer", arch: "Phantom2D", title: str) -> "matplotlib.figure.Figure":
    from phantom_jax import core_cycles, plotting

    return plotting.mesh(core_cycles(layer, arch), title)


def summary(report: "Report") -> dict[str, float | None]:
    """Returns a network's totals: cycles per image, speed-ups, densities, and where the thread slots went."""
    layers = report.layers
    return {
        "cycles": sum(report.cycles.tolist()) / len(report.cycles),
        "dense_cycles": report.dense_cycles,
        "speedup_over_mapped_dense": report.speedup_over_mapped_dense,
        "speedup_over_ideal_dense": report.speedup_over_ideal_dense,
        "perfect_skipping_bound": report.perfect_skipping_bound,
        "utilization": report.utilization,
        "weight_density": _density((layer.weight_density, layer.weights_shape) for layer in layers),
        "activation_density": _density((layer.activation_density, layer.activations_shape) for layer in layers),
        **{f"stack_{component}_share": share for component, share in report.shares.items()},
    }


def _density(masks: Iterable[tuple[float, Sequence[int]]]) -> float:
    """Returns the density of masks of given densities and shapes, taken together."""
    sizes, densities = zip(*((math.prod(shape), density) for density, shape in masks), strict=True)
    return sum(map(operator.mul, sizes, densities)) / sum(sizes)


if __name__ == "__main__":
    command.run(simulation)
