"""The comparison command: counts networks on Phantom-2D and its rivals, prints ratios, writes results and figures.

`python -m experiments.compare size=64 seeds=[0]`; the last line printed is the output directory. Started again with
`hydra.run.dir=` that directory, the command counts only what is missing there.
"""

import dataclasses

from experiments.harness import command
from experiments.harness.run import Run, main


@main("compare", resume=())
def compare(run: Run) -> None:
    """Compares networks on Phantom-2D and on its rivals."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.compare import figures, options, summary
    from experiments.compare.cases import MapPoint, NetworkRun
    from experiments.compare.designs import PAPER_RATIOS
    from experiments.harness import cases
    from phantom_jax.tables import print_tables

    arch, settings = run.arch(), options.read_settings(run.options)
    path = run.directory / "cases.jsonl"
    known = options.resume(path, run.identity(options.SELECTIONS))
    planned = list(options.plan(settings, arch))
    with run.tracked():
        found = cases.collect(path, planned, known, options.to_dict, options.describe)
        runs = [case for case in found if isinstance(case, NetworkRun)]
        points = [case for case in found if isinstance(case, MapPoint)]
        ratios, variants = summary.ratio_rows(runs), summary.ablation(runs)
        run.csv(ratios)
        run.table("ratios", ratios)
        run.table("ablation", variants)
        names = ("rival", "size", "network", "mask_kind")
        run.tracker.summarize({"/".join(row[name] for name in names): row["all"] for row in ratios})
        run.figures(figures.figures(runs, points, variants))
        notes = options.notes(settings)
        results = {"architecture": dataclasses.asdict(arch), "notes": notes, "paper": PAPER_RATIOS}
        rows = [options.to_dict(case) for case in found]
        run.finish({**results, "ratios": ratios, "ablation": variants, "cases": rows})
        command.note(notes)
        print_tables(summary.tables(ratios, variants))


if __name__ == "__main__":
    command.run(compare)
