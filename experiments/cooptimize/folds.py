"""What surrounds runs of the co-optimization that share the folds: one summary of all."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.resume import identity
from experiments.harness.sweeps import Sweep

_MAY_DIFFER = ("folds",)  # options of runs that are summarized together


class Folds(Sweep):
    """Summarizes all folds at the end of a multirun, in its directory."""

    def end(self, config: DictConfig, failed: Sequence[str]) -> None:
        """Writes tables and figures as a run does, if none failed and they differ in folds alone."""
        if failed:
            return
        from experiments.cooptimize import cases as cooptimize_cases
        from experiments.cooptimize import figures as cooptimize_figures
        from experiments.cooptimize import summary as cooptimize_summary
        from experiments.harness.files import save_figure, write_csv, write_json
        from phantom_jax import Phantom2D
        from phantom_jax.tables import print_tables

        directory = pathlib.Path(config.hydra.sweep.dir)
        jobs = sorted(path.parent for path in directory.glob("*/results.json"))
        made = [_made(json.loads((job / "results.json").read_text())) for job in jobs]
        if not made:
            command.tell([f"no summary of all folds: there is no directory with results.json in {directory}."])
            return
        if any(identity(of, _MAY_DIFFER) != identity(made[0], _MAY_DIFFER) for of in made):
            command.tell(["no summary of all folds: runs differ in more than folds; each has its own."])
            return
        settings = cooptimize_cases.read_settings(made[0]["settings"])
        arch = Phantom2D(**made[0]["settings"]["arch"])
        cases = {}
        for job, of in zip(jobs, made, strict=True):
            known = cooptimize_cases.resume(job / "cases.jsonl", identity(of, cooptimize_cases.SELECTIONS))
            of_job = cooptimize_cases.read_settings(of["settings"])
            cases |= {key: known[key] for key, _ in cooptimize_cases.plan(of_job, arch, job)}
        summary = cooptimize_summary.summarize(
            list(cases.values()), settings.accuracy_drop, settings.compared_with, settings.resamples
        )
        shown = cooptimize_cases.masks_shown(settings, settings.folds[0], jobs[0])
        made[0]["settings"]["folds"] = sorted({fold for fold, _, _ in cases})
        write_json(directory / "results.json", {"schema_version": 1, **made[0], **cooptimize_summary.rows(summary)})
        write_csv(directory / "results.csv", summary.points)
        for name, figure in cooptimize_figures.figures(summary, shown).items():
            save_figure(figure, directory / name)
        print_tables(cooptimize_summary.tables(summary))
        print(directory, flush=True)


def _made(results: dict[str, Any]) -> dict[str, Any]:
    return {name: results[name] for name in ("settings", "inputs", "versions", "git_revision", "git_modified")}
