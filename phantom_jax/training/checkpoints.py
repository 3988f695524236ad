"""Checkpoints of a run: those that are damaged are skipped."""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

_NEWEST = 2  # checkpoints that are kept
_LONGEST_REASON = 100  # characters


class Checkpoints:
    """The checkpoints in a folder, the newest of which are kept."""

    def __init__(self, directory: pathlib.Path, identity: Mapping[str, Any]) -> None:
        """Opens the folder, which is made if need be.

        Args:
            directory: The folder.
            identity: What the run depends on, as plain values; another run's checkpoints are refused.
        """
        self._directory = directory
        self._identity = json.loads(json.dumps(identity))
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_NEWEST, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    @property
    def is_empty(self) -> bool:
        """Whether there is no checkpoint, whole or damaged."""
        return not self._manager.all_steps()

    def save(self, step: int, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Saves the arrays of a run's state after a step by name, and plain values about it; whole or not at all.

        Raises:
            OSError: It cannot be written, as when the disk is full.
        """
        state = ocp.args.StandardSave({"arrays": [np.asarray(array) for array in arrays.values()]})  # pyright: ignore[reportCallIssue]
        record = ocp.args.JsonSave(  # pyright: ignore[reportCallIssue]
            {"identity": self._identity, "about": dict(about), "names": list(arrays)}
        )
        try:
            self._manager.save(step, args=ocp.args.Composite(state=state, record=record))
        except Exception as error:  # whatever a full disk raises
            left = shutil.disk_usage(self._directory).free
            raise OSError(
                f"the state after step {step} cannot be saved in {self._directory}, where {left:,} bytes are free: "
                f"{_reason(error)}. Checkpoints are as they were, and resume= resumes from the newest."
            ) from None

    def restore(self, report: Callable[[str], None]) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns the newest whole checkpoint, None if there is none.

        Args:
            report: Called with a note on each checkpoint that cannot be read, which is set aside under another name.

        Raises:
            ValueError: It is one of another run, or of a version that did not name its arrays.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            wanted = ocp.args.Composite(state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore())  # pyright: ignore[reportCallIssue]
            try:
                found = self._manager.restore(step, args=wanted)
                record, state = found["record"], found["state"]
                identity, about = record["identity"], record["about"]
            except Exception as error:  # whatever a damaged file raises
                aside = self._set_aside(step)
                report(f"checkpoint {step} cannot be read, so it is skipped and kept as {aside}: {_reason(error)}")
                continue
            if "names" not in record:
                raise ValueError(
                    f"{self._directory} holds checkpoints of an earlier version, which this one cannot read. Set "
                    "another directory, or finish the run with the version that began it."
                )
            differences = _differences(identity, self._identity)
            if differences:
                raise ValueError(
                    f"{self._directory} holds checkpoints of another configuration: {'; '.join(differences)}. Set "
                    "these as they were, or another directory."
                )
            return dict(zip(record["names"], map(np.asarray, state["arrays"]), strict=True)), about
        return None

    def _set_aside(self, step: int) -> pathlib.Path:
        aside = self._directory / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time
        (self._directory / str(step)).rename(aside)
        self._manager.reload()
        return aside

    def close(self) -> None:
        """Ends what works in the background."""
        self._manager.close()


def _reason(error: Exception) -> str:
    """Returns the first line of an error, which may be long."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [text for key in keys for text in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [f"{name} was {old!r}, now {new!r}"]
