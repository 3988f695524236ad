"""Configuration -> tracker, for all commands."""

import pathlib
from typing import Any

from hydra.core.hydra_config import HydraConfig

from experiments.harness import command
from experiments.harness.options import check_names, group_of, make
from experiments.harness.tracking import MODES, Identity, Tracker, Wandb, logged_group, open_tracker
from phantom_jax.checks import one_of

_ALIASES = {"": "offline", "dryrun": "offline", "run": "online"}  # of modes; wandb knows the last two


def tracked(values: dict[str, Any], name: str, directory: pathlib.Path, resume_after: int | None = None) -> Tracker:
    """Returns the tracker of a run, for a `with` statement around its work.

    It is the group `tracking` of the configuration that says how. Runs of a multirun are in one group.

    Args:
        values: All options of the command, as plain values.
        name: Of the command.
        directory: Where the log goes.
        resume_after: The last step that it has behind it; None if it begins.

    Raises:
        ValueError: An option of `tracking` is unknown or not valid.
    """
    options = group_of(values, "tracking")
    backend = one_of("tracking.backend", options.pop("backend", None), ("none", "wandb"))
    group = options.pop("group", None)
    if group is None and command.in_multirun():
        group = pathlib.Path(HydraConfig.get().sweep.dir).name
    elif group is None and resume_after is not None:  # that of the sweep which it began in
        group = logged_group(directory)
    wandb = None
    if backend == "none":
        check_names(values["tracking"], ("backend",), ("group",), group="tracking")
    else:
        mode = options.get("mode", "offline")
        mode = one_of("tracking.mode (WANDB_MODE)", _ALIASES.get(mode, mode), MODES)
        wandb = make(Wandb, options | {"mode": mode}, "tracking")
    return open_tracker(directory, Identity(name, values, group), wandb, resume_after)
