"""The validation job: the baselines beside published figures, as a table and `results.json`.

`python -m experiments.validate`; the last line printed is the output directory.
"""

import dataclasses
import statistics

import hydra
from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.once import once


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="validate")
@command.job
@once
def main(config: DictConfig) -> None:
    """Runs one job."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from rich.console import Console
    from rich.progress import Progress

    from experiments.harness import provenance
    from experiments.harness.files import write_csv, write_json
    from experiments.harness.options import check_names, plain
    from experiments.harness.tracked import tracked
    from experiments.validate import checks as validation
    from phantom_jax.checks import integer
    from phantom_jax.tables import print_tables

    check_names(plain(config), ("tracking", "size", "seed"))
    seed = integer("seed", config.seed, minimum=0, maximum=2**64 - 1)
    made = provenance.collect(config)
    planned = list(validation.checks(config.size, seed))
    directory, found = command.output_directory(), []
    with tracked(config, "validate") as tracker:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            for measure in bar.track(planned, description="Validating"):
                found += measure()
        rows = [{**dataclasses.asdict(check), "deviation": check.deviation} for check in found]
        results = {"schema_version": 1, **made, "size": config.size, "seed": seed, "checks": rows}
        write_csv(directory / "results.csv", rows)
        tracker.table("checks", rows)
        deviations = [abs(check.deviation) for check in found if check.deviation is not None]
        tracker.summarize({"checks": len(found), "median_of_absolute_deviations": statistics.median(deviations)})
        write_json(directory / "results.json", results)
        tracker.artifact("results", directory / "results.json", "results")
        print_tables([validation.table(found)])
    print(directory, flush=True)


if __name__ == "__main__":
    command.run(main)
