"""The sweeper of this project's jobs: Hydra's own, except that failing jobs are told at the end, with their overrides.

Hydra takes sweepers from the package `hydra_plugins` alone, wherever it lies on Python's path.
"""

import sys
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins import basic_sweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from experiments.harness import command


class CompleteSweeper(basic_sweeper.BasicSweeper):
    """Runs all jobs of a sweep, whichever fail."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepares the sweep."""
        command.prepare_sweep(config)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the jobs.

        Raises:
            JobFailedError: Some failed, which has been told.
        """
        assert self.launcher is not None
        launch, returns = self.launcher.launch, []

        def launch_and_note(job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            found = launch(job_overrides, initial_job_idx=initial_job_idx)
            returns.extend(found)
            return [job for job in found if job.status != JobStatus.FAILED]  # the base class stops at one that failed

        self.launcher.launch = launch_and_note
        finished = super().sweep(arguments)
        failed = [job for job in returns if job.status == JobStatus.FAILED]
        if failed:
            _tell(failed, len(returns))
            raise command.JobFailedError from failed[0]._return_value
        return finished


def _tell(failed: Sequence[JobReturn], jobs: int) -> None:
    print(f"{len(failed)} of {jobs} jobs failed:", file=sys.stderr)
    directory = None
    for job in failed:
        assert job.hydra_cfg is not None
        directory = job.hydra_cfg.hydra.sweep.dir
        overrides, error = " ".join(job.overrides or ()), command.text_of(job._return_value).splitlines()[0]
        print(f"  #{job.hydra_cfg.hydra.job.num} {overrides}: {error}", file=sys.stderr)
    print(
        f"The same command with hydra.sweep.dir={directory} runs these alone.",
        file=sys.stderr,
    )
