"""The fidelity command: measures the proxy against the exact model, prints summaries, writes cases and figures.

`python -m experiments.fidelity studies=[error] draws=40`; the last line printed is the output directory. Started again
with `hydra.run.dir=` that directory, the command measures only what is missing there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness import command
from experiments.harness.run import Run, main


@main("fidelity", resume=())
def fidelity(run: Run) -> None:
    """Measures the proxy against the exact model."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.fidelity import figures, options
    from experiments.fidelity.cases import ErrorCase
    from experiments.fidelity.summary import summarize, tables
    from experiments.harness import cases
    from phantom_jax.tables import print_tables

    arch, settings = run.arch(), options.read_settings(run.options)
    layers, workload = options.load_layers(settings)
    path = run.directory / "cases.jsonl"
    known = options.resume(path, run.identity(options.SELECTIONS))
    planned = list(options.plan(settings, layers, arch))
    with run.tracked():
        found = cases.collect(path, planned, known, options.to_dict, options.describe)
        summary, rows = summarize(found), [options.to_dict(case) for case in found]
        if errors := [row for row in rows if row["study"] == ErrorCase.study]:
            run.csv(errors)
        for study, of_study in summary.items():
            run.table(study, of_study)
        run.tracker.summarize(totals(summary))
        run.figures(figures.figures(found))
        provenance = {"workload": None if workload is None else workload.provenance()}
        run.finish({"architecture": options.architecture(arch), **provenance, "summary": summary, "cases": rows})
        command.note(workload.notes if workload else ())
        print_tables(tables(summary))


def totals(summary: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns what a summary has over all layers, as `STUDY/inter_balance/NAME` or `STUDY/no_inter_balance/NAME`."""
    from experiments.fidelity.summary import TOTAL

    return {
        f"{study}/{'inter_balance' if row['inter_balance'] else 'no_inter_balance'}/{name}": value
        for study, rows in summary.items()
        for row in rows
        if row["layer"] == TOTAL
        for name, value in row.items()
        if name not in ("layer", "inter_balance")
    }


if __name__ == "__main__":
    command.run(fidelity)
