"""The fidelity job: measures the proxy against the exact model, prints summaries, writes cases and figures.

`python -m experiments.fidelity studies=[error] draws=40`; the last line printed is the output directory. Started again
with `hydra.run.dir=` that directory, the job measures only what is missing there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import hydra
from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.once import once


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="fidelity")
@command.job
@once
def main(config: DictConfig) -> None:
    """Runs one job."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.fidelity import figures as fidelity_plotting
    from experiments.fidelity import options as fidelity_cases
    from experiments.fidelity.cases import STUDIES, ErrorCase
    from experiments.fidelity.summary import summarize, tables
    from experiments.harness import kept, provenance
    from experiments.harness.files import save_figure, write_csv, write_json
    from experiments.harness.options import make, plain
    from experiments.harness.tracked import tracked
    from phantom_jax import Phantom2D
    from phantom_jax.tables import print_tables

    options = plain(config)
    arch = make(Phantom2D, options["arch"], "arch")
    settings = fidelity_cases.read_settings(options)
    layers, masks = fidelity_cases.load_layers(settings)
    made = provenance.collect(config)  # before anything that was read can change
    directory = command.output_directory()
    path = directory / "cases.jsonl"
    known = fidelity_cases.resume(path, settings, arch, masks)
    planned = list(fidelity_cases.plan(settings, layers, arch))

    def describe(key: kept.Key) -> str:
        study, *identity = key
        named = zip(STUDIES[study].identity, identity, strict=True)
        return f"{study}: {', '.join(f'{name} {value}' for name, value in named)}"

    with tracked(config, "fidelity") as tracker:
        cases = kept.collect(path, planned, known, fidelity_cases.to_dict, describe)
        summary, rows = summarize(cases), [fidelity_cases.to_dict(case) for case in cases]
        results = {
            "schema_version": 1,
            **made,
            "architecture": fidelity_cases.architecture(arch),
            "masks": None if masks is None else masks.provenance(),
            "summary": summary,
            "cases": rows,
        }
        if errors := [row for row in rows if row["study"] == ErrorCase.study]:
            write_csv(directory / "results.csv", errors)
        for study, found in summary.items():
            tracker.table(study, found)
        tracker.summarize(totals(summary))
        for name, figure in fidelity_plotting.figures(cases).items():
            tracker.figure(name, save_figure(figure, directory / name))
        write_json(directory / "results.json", results)
        tracker.artifact("results", directory / "results.json", "results")

        command.tell(masks.notes if masks else ())
        print_tables(tables(summary))
    print(directory, flush=True)


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
    command.run(main)
