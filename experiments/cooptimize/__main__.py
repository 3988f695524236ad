"""The co-optimization job: methods that make a network sparse, compared at equal accuracy in exact cycles.

`python -m experiments.cooptimize data=digits targets.cycle_aware=[0.1,0.05]`; the last line printed is the output
directory. Started again with `hydra.run.dir=` that directory, the job trains only what is missing there. With
`--multirun` over folds, jobs share the work, and `experiments.cooptimize.folds` puts their cases together.
"""

import hydra
from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.once import once


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="cooptimize")
@command.job
@once
def main(config: DictConfig) -> None:
    """Runs one job."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.cooptimize import cases as cooptimize_cases
    from experiments.cooptimize import figures as cooptimize_figures
    from experiments.cooptimize import summary as cooptimize_summary
    from experiments.harness import kept, provenance
    from experiments.harness.files import save_figure, write_csv, write_json
    from experiments.harness.options import make, plain
    from experiments.harness.tracked import tracked
    from phantom_jax import Phantom2D
    from phantom_jax.tables import print_tables

    options = plain(config)
    arch = make(Phantom2D, options["arch"], "arch")
    settings = cooptimize_cases.read_settings(options)
    cooptimize_cases.check(settings)
    made = provenance.collect(config)  # before anything that was read can change
    directory = command.output_directory()
    path = directory / "cases.jsonl"
    known = cooptimize_cases.resume(path, settings, arch, made["inputs"])
    planned = list(cooptimize_cases.plan(settings, arch, directory))

    with tracked(config, "cooptimize") as tracker:
        cases = kept.collect(path, planned, known, vars, lambda key: f"fold {key[0]}, {key[1]} {key[2] or ''}")
        summary = cooptimize_summary.summarize(
            cases, settings.accuracy_drop, settings.compared_with, settings.resamples
        )
        results = cooptimize_summary.results(made, summary)
        write_csv(directory / "results.csv", summary.points)
        for name in cooptimize_summary.ROWS:
            tracker.table(name, results[name])
        tracker.summarize({f"{row['method']}/ratio": row["ratio"] for row in summary.equal_accuracy})
        shown = cooptimize_cases.masks_shown(settings, settings.folds[0], directory)
        for name, figure in cooptimize_figures.figures(summary, shown).items():
            tracker.figure(name, save_figure(figure, directory / name))
        write_json(directory / "results.json", results)
        tracker.artifact("results", directory / "results.json", "results")
        print_tables(cooptimize_summary.tables(summary))
    print(directory, flush=True)


if __name__ == "__main__":
    command.run(main)
