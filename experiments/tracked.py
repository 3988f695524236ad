"""Configuration -> tracker, for all jobs."""

import pathlib
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments import command
from phantom_jax.checks import one_of
from phantom_jax.tracking import Identity, Tracker, Wandb, open_tracker


def tracked(
    config: DictConfig, job: str, directory: pathlib.Path | None = None, resume_after: int | None = None
) -> Tracker:
    """Returns the tracker of a job, for a `with` statement around its work.

    It is the group `tracking` of the configuration that says how. Runs of a multirun are in one group.

    Args:
        config: The whole configuration of the job.
        job: Its name.
        directory: Where the log goes; by default the job's output directory.
        resume_after: The last step that it has behind it; None if it begins.

    Raises:
        ValueError: An option of `config.tracking` is unknown or not valid.
    """
    options = command.options(config, "tracking")
    backend = one_of("tracking.backend", options.pop("backend"), ("none", "wandb"))
    group, hydra = options.pop("group", None), HydraConfig.get()
    if group is None and hydra.mode == RunMode.MULTIRUN:
        group = pathlib.Path(hydra.sweep.dir).name
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    wandb = Wandb(**options) if backend == "wandb" else None
    return open_tracker(directory or command.output_directory(), Identity(job, values, group), wandb, resume_after)
