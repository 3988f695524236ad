"""The co-optimization command: methods that make a network sparse, compared at equal accuracy in exact cycles.

`python -m experiments.cooptimize data=digits targets.cycle_aware=[0.1,0.05]`; the last line printed is the output
directory. Started again with `hydra.run.dir=` that directory, the command trains only what is missing there. With
`--multirun` over folds, each fold is a run, and `experiments.cooptimize.folds` puts their cases together.
"""

from experiments.harness import command
from experiments.harness.run import Run, main


@main("cooptimize", resume=())
def cooptimize(run: Run) -> None:
    """Compares methods at equal accuracy."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.cooptimize import cases, figures, summary
    from experiments.harness.cases import collect
    from phantom_jax.tables import print_tables

    arch, settings = run.arch(), cases.read_settings(run.options)
    cases.check(settings)
    path = run.directory / "cases.jsonl"
    known = cases.resume(path, run.identity(cases.SELECTIONS))
    planned = list(cases.plan(settings, arch, run.directory))
    with run.tracked():
        found = collect(path, planned, known, vars, lambda key: f"fold {key[0]}, {key[1]} {key[2] or ''}")
        summed = summary.summarize(found, settings.accuracy_drop, settings.compared_with, settings.resamples)
        results = summary.rows(summed)
        run.csv(summed.points)
        for name, rows in results.items():
            run.table(name, rows)
        run.tracker.summarize({f"{row['method']}/ratio": row["ratio"] for row in summed.equal_accuracy})
        run.figures(figures.figures(summed, cases.masks_shown(settings, settings.folds[0], run.directory)))
        run.finish(results)
        print_tables(summary.tables(summed))


if __name__ == "__main__":
    command.run(cooptimize)
