"""Jobs of a sweep that are not run again: what was finished is known by its results."""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig

from experiments.harness import command

_FREE = ("tracking", "resume")  # settings that results do not depend on


def once(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wraps the body of a job, so that in a multirun it is passed over where its directory holds its results.

    Its results are those of the same settings, of the same contents of files that it reads, and of this version of
    phantom_jax. They are written when all else is, so the job was finished. Others are told of, and the job runs.
    """

    @functools.wraps(function)
    def wrapped(config: DictConfig) -> None:
        directory = command.output_directory()
        path = directory / "results.json"
        if not command.in_multirun() or not path.exists():
            function(config)
        elif differences := _differences(path, config):
            command.tell([f"{path} holds other results: {'; '.join(differences)}. The job runs."])
            function(config)
        else:
            command.tell([f"{path} holds these results already. The job is not run again."])
            print(directory, flush=True)

    return wrapped


def _differences(path: pathlib.Path, config: DictConfig) -> list[str]:
    """Returns what the results of a file depend on otherwise than those of a configuration."""
    from experiments.harness import provenance

    try:
        then, now = (identity(results) for results in (json.loads(path.read_text()), provenance.collect(config)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"they do not say of what ({error!r})"]
    names = dict.fromkeys([*then, *now])
    return [f"{name} {then.get(name)}, now {now.get(name)}" for name in names if then.get(name) != now.get(name)]


def identity(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what results depend on: settings by their names in full, contents of files, the version."""
    settings = {name: value for name, value in results["settings"].items() if name not in _FREE}
    return {**_flat(settings), **results["inputs"], "phantom_jax": results["versions"]["phantom_jax"]}


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns values of nested groups by their names in full."""
    found = {}
    for name, value in values.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found
