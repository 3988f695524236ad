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
        from experiments.cooptimize import cases as cases
        from experiments.cooptimize import figures, summary
        from experiments.harness.files import save_figures, write_csv, write_json
        from phantom_jax import Phantom2D
        from phantom_jax.tables import print_tables

        directory = pathlib.Path(config.hydra.sweep.dir)
        directories = sorted(path.parent for path in directory.glob("*/results.json"))
        made = [_made(json.loads((of_fold / "results.json").read_text())) for of_fold in directories]
        if not made:
            command.note([f"no summary of all folds: there is no directory with results.json in {directory}."])
            return
        if any(identity(of, _MAY_DIFFER) != identity(made[0], _MAY_DIFFER) for of in made):
            command.note(["no summary of all folds: runs differ in more than folds; each has its own."])
            return
        settings = cases.read_settings(made[0]["settings"])
        arch = Phantom2D(**made[0]["settings"]["arch"])
        found = {}
        for of_fold, of in zip(directories, made, strict=True):
            known = cases.resume(of_fold / "cases.jsonl", identity(of, cases.SELECTIONS))
            planned = cases.read_settings(of["settings"])
            found |= {key: known[key] for key, _ in cases.plan(planned, arch, of_fold)}
        summarized = summary.summarize(
            list(found.values()), settings.accuracy_drop, settings.compared_with, settings.resamples
        )
        shown = cases.masks_shown(settings, settings.folds[0], directories[0])
        made[0]["settings"]["folds"] = sorted({fold for fold, _, _ in found})
        write_json(directory / "results.json", {"schema_version": 1, **made[0], **summary.rows(summarized)})
        write_csv(directory / "results.csv", summarized.points)
        save_figures(directory, figures.figures(summarized, shown))
        print_tables(summary.tables(summarized))
        print(directory, flush=True)


def _made(results: dict[str, Any]) -> dict[str, Any]:
    return {name: results[name] for name in ("settings", "inputs", "versions", "git_revision", "git_modified")}
