"""The architecture search: counts the exact cycles and the area of one mesh; a multirun searches with Optuna.

`python -m experiments.explore --multirun workload=mobilenet_v1 hydra.sweeper.n_trials=100`
"""

import dataclasses

from experiments.explore.front import OPTIONS
from experiments.harness import command
from experiments.harness.options import check_names, make
from experiments.harness.run import Run, main


@main("explore", value=lambda results: (results["cycles"], results["area"]))
def explore(run: Run) -> dict[str, float]:
    """Counts the mean cycles per image and the area of a mesh."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.explore.area import area
    from experiments.harness.workload import load_workload
    from phantom_jax import Phantom2D, simulate
    from phantom_jax.checks import integer

    check_names(run.options, OPTIONS)
    budget = integer("multipliers", run.options["multipliers"], minimum=1)
    wanted = run.options["arch"]
    has_all_columns = wanted.get("cols") == "auto"
    arch = make(Phantom2D, {**wanted, "cols": 1} if has_all_columns else wanted, "arch")
    if arch.multipliers > budget:
        raise ValueError(
            f"multipliers must be at least those of the mesh, got {budget} for {arch.rows} x {arch.cols} cores of "
            f"{arch.pes} x {arch.threads}."
        )
    if has_all_columns:
        arch = dataclasses.replace(arch, cols=budget // arch.multipliers)
    with run.tracked():
        report = simulate(load_workload(run.options), arch)
        parts = area(arch)
        found = {
            "cycles": sum(report.cycles.tolist()) / len(report.cycles),
            "area": sum(parts.values()),
            "multipliers": arch.multipliers,
            "utilization": report.utilization,
        }
        run.tracker.summarize(found)
        run.finish({"architecture": dataclasses.asdict(arch), **found, "parts": parts})
    print(
        f"{arch.rows} x {arch.cols} cores of {arch.pes} x {arch.threads}, lookahead {arch.lookahead}, {arch.selector}: "
        f"{found['cycles']:,.0f} cycles, area {found['area']:,}"
    )
    return found


if __name__ == "__main__":
    command.run(explore)
