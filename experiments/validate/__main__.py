"""The validation command: the baselines beside published figures, as a table and `results.json`.

`python -m experiments.validate`; the last line printed is the output directory.
"""

import statistics

from experiments.harness import command
from experiments.harness.options import check_names
from experiments.harness.run import Run, main


@main("validate")
def validate(run: Run) -> None:
    """Puts the baselines beside published figures."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.validate.checks import checks, tables
    from phantom_jax.checks import check_seed
    from phantom_jax.tables import print_tables

    check_names(run.options, ("tracking", "size", "seed"))
    size, seed = run.options["size"], check_seed(run.options["seed"])
    planned, found = list(checks(size, seed)), []
    with run.tracked():
        with command.progress() as bar:
            for measure in bar.track(planned, description="Validating"):
                found += measure()
        rows = [check.row() for check in found]
        run.csv(rows)
        run.table("checks", rows)
        deviations = [abs(check.deviation) for check in found if check.deviation is not None]
        run.tracker.summarize({"checks": len(found), "median_of_absolute_deviations": statistics.median(deviations)})
        run.finish({"size": size, "seed": seed, "checks": rows})
        print_tables(tables(found))


if __name__ == "__main__":
    command.run(validate)
