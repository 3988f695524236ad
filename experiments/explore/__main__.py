"""The architecture search: counts the exact cycles and the area of one mesh; a multirun searches with Optuna.

`python -m experiments.explore --multirun workload=mobilenet_v1 hydra.sweeper.n_trials=100`
"""

import dataclasses
import json
import pathlib
from typing import Any

import hydra
from omegaconf import DictConfig

from experiments.harness import command


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="explore")
@command.job
def main(config: DictConfig) -> tuple[float, float]:
    """Runs one job; returns the mean cycles per image and the area."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    import phantom_jax
    from experiments.explore.area import area
    from experiments.harness import provenance
    from experiments.harness.files import write_json
    from experiments.harness.options import check_names, make, plain
    from experiments.harness.tracked import tracked
    from experiments.harness.workload import load_workload
    from phantom_jax import Phantom2D, simulate
    from phantom_jax.checks import integer

    options = plain(config)
    check_names(options, ("arch", "workload", "tracking", "multipliers", "seed"))
    wanted = options["arch"]
    budget = integer("multipliers", options["multipliers"], minimum=1)
    arch = make(Phantom2D, {**wanted, "cols": 1 if wanted.get("cols") == "auto" else wanted.get("cols")}, "arch")
    if arch.multipliers > budget:
        raise ValueError(
            f"multipliers must be at least those of the mesh, got {budget} for {arch.rows} x {arch.cols} cores of "
            f"{arch.pes} x {arch.threads}."
        )
    if wanted.get("cols") == "auto":
        arch = dataclasses.replace(arch, cols=budget // arch.multipliers)
    directory = command.output_directory()
    settings = {name: value for name, value in options.items() if name != "tracking"}
    settings |= {"arch": dataclasses.asdict(arch), "phantom_jax": phantom_jax.__version__, **provenance.inputs(config)}

    found = _known(directory / "results.json", settings)
    if found is None:
        with tracked(config, "explore") as tracker:
            report = simulate(load_workload(options), arch)
            parts = area(arch)
            found = {
                "cycles": sum(report.cycles.tolist()) / len(report.cycles),
                "area": sum(parts.values()),
                "multipliers": arch.multipliers,
                "utilization": report.utilization,
            }
            made = {**provenance.collect(config), "settings": settings}
            results = {"schema_version": 1, **made, **found, "parts": parts}
            tracker.summarize(found)
            write_json(directory / "results.json", results)
    print(
        f"{arch.rows} x {arch.cols} cores of {arch.pes} x {arch.threads}, lookahead {arch.lookahead}, {arch.selector}: "
        f"{found['cycles']:,.0f} cycles, area {found['area']:,}"
    )
    print(directory, flush=True)
    return found["cycles"], found["area"]


def _known(path: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the results of the same settings that a file holds, or None."""
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} must hold the results of this job as JSON: {error}.") from error
    return results if isinstance(results, dict) and results.get("settings") == settings else None


if __name__ == "__main__":
    command.run(main)
