"""What surrounds jobs of the co-optimization that share out the folds: one summary of all."""

import json
import pathlib
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from experiments import command


class Folds(Callback):
    """Summarizes all folds at the end of a multirun, in its directory."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes tables and figures as a job does, if jobs differ in folds alone and all are done."""
        from experiments import cooptimize_cases, cooptimize_summary
        from experiments.figures import save
        from phantom_jax import Phantom2D
        from phantom_jax.report import print_tables

        directory = pathlib.Path(config.hydra.sweep.dir)
        jobs = sorted(path.parent for path in directory.glob("*/cases.jsonl"))
        missing = [job.name for job in jobs if not (job / "results.json").exists()]
        if missing or not jobs:
            command.tell([f"no summary of all folds: {', '.join(missing) or 'all'} not done."])
            return
        options = [json.loads((job / "results.json").read_text())["settings"] for job in jobs]
        alike = [{name: value for name, value in of.items() if name not in ("folds", "tracking")} for of in options]
        if any(of != alike[0] for of in alike):
            command.tell(["no summary of all folds: jobs differ in more than folds; each has its own."])
            return
        settings = cooptimize_cases.read_settings(options[0])
        arch = Phantom2D(**options[0]["arch"])
        cases = {}
        for job in jobs:
            cases |= cooptimize_cases.resume(job / "cases.jsonl", settings, arch)
        summary = cooptimize_summary.summarize(list(cases.values()), settings.loss, settings.resamples)
        cooptimize_summary.write(summary, options[0] | {"folds": sorted({key[0] for key in cases})}, directory)
        for name, figure in cooptimize_summary.figures(summary).items():
            save(figure, directory / name)
        print_tables(cooptimize_summary.tables(summary))
        print(directory, flush=True)
