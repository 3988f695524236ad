"""The comparison job: counts networks on Phantom-2D and its rivals, prints ratios, writes results and figures.

`python -m experiments.compare size=64 seeds=[0]`; the last line printed is the output directory. Started again with
`hydra.run.dir=` that directory, the job counts only what is missing there.
"""

import dataclasses

import hydra
from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.once import once


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="compare")
@command.job
@once
def main(config: DictConfig) -> None:
    """Runs one job."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from experiments.compare import figures as comparison_plotting
    from experiments.compare import options as compare_cases
    from experiments.compare.cases import MapPoint, Run
    from experiments.compare.designs import PAPER_RATIOS
    from experiments.compare.summary import ablation, ratio_rows, tables
    from experiments.harness import kept, provenance
    from experiments.harness.files import save_figure, write_csv, write_json
    from experiments.harness.options import make, plain
    from experiments.harness.tracked import tracked
    from phantom_jax import Phantom2D
    from phantom_jax.tables import print_tables

    options = plain(config)
    arch = make(Phantom2D, options["arch"], "arch")
    settings = compare_cases.read_settings(options)
    made = provenance.collect(config)
    directory = command.output_directory()
    path = directory / "cases.jsonl"
    known = compare_cases.resume(path, settings, arch)
    planned = list(compare_cases.plan(settings, arch))

    with tracked(config, "compare") as tracker:
        cases = kept.collect(path, planned, known, compare_cases.to_dict, lambda key: ", ".join(map(str, key[1:])))
        runs = [case for case in cases if isinstance(case, Run)]
        points = [case for case in cases if isinstance(case, MapPoint)]
        ratios, variants = ratio_rows(runs), ablation(runs)
        results = {
            "schema_version": 1,
            **made,
            "architecture": dataclasses.asdict(arch),
            "notes": compare_cases.notes(settings),
            "paper": PAPER_RATIOS,
            "ratios": ratios,
            "ablation": variants,
            "cases": [compare_cases.to_dict(case) for case in cases],
        }
        write_csv(directory / "results.csv", ratios)
        tracker.table("ratios", ratios)
        tracker.table("ablation", variants)
        tracker.summarize(
            {"/".join(row[name] for name in ("rival", "size", "network", "masks")): row["all"] for row in ratios}
        )
        for name, figure in comparison_plotting.figures(runs, points, variants).items():
            tracker.figure(name, save_figure(figure, directory / name))
        write_json(directory / "results.json", results)
        tracker.artifact("results", directory / "results.json", "results")

        command.tell(results["notes"])
        print_tables(tables(ratios, variants))
    print(directory, flush=True)


if __name__ == "__main__":
    command.run(main)
