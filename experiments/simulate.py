"""The main job: counts the exact cycles of a workload, prints them per layer and writes results and figures.

`python -m experiments.simulate workload=vgg16 arch=phantom_cv`; the last line printed is the output directory.
"""

import math
import operator
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.once import once

if TYPE_CHECKING:
    from experiments.harness.tracking import Tracker
    from phantom_jax import Phantom2D, Report
    from phantom_jax.workloads import Workload

_MOST_CORES_OF_A_MAP = 1 << 12  # more cannot be read


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="simulate")
@command.job
@once
def main(config: DictConfig) -> None:
    """Runs one job."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from rich.console import Console
    from rich.progress import Progress

    from experiments.harness import provenance
    from experiments.harness.files import write_csv, write_json
    from experiments.harness.options import boolean, check_names, make, plain
    from experiments.harness.tracked import tracked
    from experiments.harness.workload import load_workload
    from phantom_jax import Phantom2D, simulate
    from phantom_jax.checks import one_of

    options = plain(config)
    check_names(options, ("arch", "workload", "figures", "tracking", "seed"))
    check_names(options["figures"], ("write", "layer"), group="figures")
    arch = make(Phantom2D, options["arch"], "arch")
    workload = load_workload(options)
    made = provenance.collect(config)  # before anything that was read can change
    shown = options["figures"]["layer"]
    if shown is not None:
        shown = one_of("figures.layer", str(shown), tuple(workload.names))
    with_figures = boolean("figures.write", options["figures"]["write"])

    console, directory = Console(), command.output_directory()
    with tracked(config, "simulate") as tracker:
        bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
        with bar:
            report = simulate(bar.track(workload, description="Counting cycles"), arch)

        results = {
            "schema_version": 1,
            **made,
            "workload": workload.provenance(),
            "seed": workload.seed,
            **report.to_dict(),
        }
        write_csv(directory / "results.csv", report.rows())
        tracker.table("layers", report.rows())
        tracker.summarize(summary(report))

        command.tell(workload.notes)
        report.print(console)
        if with_figures:
            command.tell(write_figures(directory, report, workload, arch, shown, tracker))
        write_json(directory / "results.json", results)
        tracker.artifact("results", directory / "results.json", "results")
    print(directory, flush=True)


def write_figures(
    directory: pathlib.Path,
    report: "Report",
    workload: "Workload",
    arch: "Phantom2D",
    layer: str | None,
    tracker: "Tracker",
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
    from experiments.harness.files import save_figure
    from phantom_jax import core_cycles, plotting

    tracker.figure("stack", save_figure(plotting.cycle_stack(report), directory / "stack"))
    tracker.figure("speedups", save_figure(plotting.speedups(report), directory / "speedups"))
    if arch.cores > _MOST_CORES_OF_A_MAP:
        return [f"no map of the mesh, whose {arch.cores} cores are too many to show."]
    busiest = max(range(len(workload)), key=lambda index: report.layers[index].cycles[0])
    index = busiest if layer is None else workload.names.index(layer)
    cores = core_cycles(workload[index], arch)
    if not cores.any():
        return [f"no map of the mesh, since {workload.names[index]} has no work."]
    title = f"{workload.names[index]} on {arch.rows} x {arch.cols} cores ({report.layers[index].row_axis})"
    tracker.figure("mesh", save_figure(plotting.mesh(cores, title), directory / "mesh"))
    return []


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
    command.run(main)
