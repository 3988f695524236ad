"""Checkpoints of a run: those that are damaged are skipped.

A checkpoint is a folder that Orbax writes, with `checksums.json` beside Orbax's files: a version, and the SHA-256 of
each file. They are compared before Orbax reads anything, as it checks few of its bits and reports damage at length.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

_VERSION = "version 1"  # of what a checkpoint holds, and how
_NEWEST = 2  # checkpoints that are kept
_LONGEST_REASON = 100  # characters
_CHECKSUMS = "checksums.json"
_PARTIAL = ".partial"


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
        self._checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        directory.mkdir(parents=True, exist_ok=True)
        for partial in directory.glob(f"*{_PARTIAL}*"):  # of a process that was killed
            shutil.rmtree(partial, ignore_errors=True)

    @property
    def is_empty(self) -> bool:
        """Whether there is no checkpoint, whole or damaged."""
        return not self._steps()

    def save(self, step: int, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Saves the arrays of a run's state after a step by name, and plain values about it; whole or not at all.

        Raises:
            OSError: It cannot be written, as when the disk is full.
        """
        state = ocp.args.StandardSave({"arrays": [np.asarray(array) for array in arrays.values()]})  # pyright: ignore[reportCallIssue]
        record = ocp.args.JsonSave(  # pyright: ignore[reportCallIssue]
            {"identity": self._identity, "about": dict(about), "names": list(arrays)}
        )
        partial = self._directory / f"{step}{_PARTIAL}"
        try:
            self._checkpointer.save(partial.resolve(), args=ocp.args.Composite(state=state, record=record))
            _write_checksums(partial)
            partial.rename(self._directory / str(step))
        except Exception as error:  # whatever a full disk raises
            left = shutil.disk_usage(self._directory).free
            raise OSError(
                f"the state after step {step} cannot be saved in {self._directory}, where {left:,} bytes are free: "
                f"{_reason(error)}. Checkpoints are as they were, and resume= resumes from the newest."
            ) from None
        for old in self._steps()[_NEWEST:]:
            shutil.rmtree((self._directory / str(old)).rename(self._directory / f"{old}{_PARTIAL}"))

    def restore(self, report: Callable[[str], None]) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns the newest whole checkpoint, None if there is none.

        Args:
            report: Called with a note on each checkpoint that is damaged, which is set aside under another name.

        Raises:
            ValueError: It is one of another run, or of another version.
        """
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore())  # pyright: ignore[reportCallIssue]
        for step in self._steps():
            path, found = self._directory / str(step), None
            try:
                version = _version(path)
                if version == _VERSION:
                    _check_files(path)
                    found = self._checkpointer.restore(path.resolve(), args=wanted)
            except Exception as error:  # whatever a damaged file raises
                aside = self._set_aside(step)
                report(f"checkpoint {step} is damaged, so it is skipped and kept as {aside}: {_reason(error)}")
                continue
            if found is None:
                raise ValueError(
                    f"{self._directory} holds checkpoints of {version or 'an earlier version'}, but this phantom_jax "
                    f"reads {_VERSION}. Set another directory, or finish the run with the phantom_jax that began it."
                )
            record = found["record"]
            differences = _differences(record["identity"], self._identity)
            if differences:
                raise ValueError(
                    f"{self._directory} holds checkpoints of another configuration: {'; '.join(differences)}. Set "
                    "these as they were, or another directory."
                )
            arrays = map(np.asarray, found["state"]["arrays"])
            return dict(zip(record["names"], arrays, strict=True)), record["about"]
        return None

    def close(self) -> None:
        """Ends what works in the background."""
        self._checkpointer.close()

    def _steps(self) -> list[int]:
        """Returns the steps of all checkpoints, whole or damaged, the newest first."""
        return sorted((int(path.name) for path in self._directory.iterdir() if path.name.isdecimal()), reverse=True)

    def _set_aside(self, step: int) -> pathlib.Path:
        aside = self._directory / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time
        (self._directory / str(step)).rename(aside)
        return aside


def _write_checksums(checkpoint: pathlib.Path) -> None:
    """Writes the version and the checksum of each file, and of all that."""
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    about = {"version": _VERSION, "files": {str(path.relative_to(checkpoint)): _sha256(path) for path in paths}}
    (checkpoint / _CHECKSUMS).write_text(json.dumps({**about, "sha256": _sha256_of(about)}, indent=2) + "\n")


def _version(checkpoint: pathlib.Path) -> str | None:
    """Returns the version of a checkpoint; None if it has neither version nor checksums.

    Raises:
        Exception: Whatever a damaged `checksums.json` raises.
    """
    path = checkpoint / _CHECKSUMS
    if not path.exists():
        return None
    about = json.loads(path.read_bytes())
    if about.pop("sha256") != _sha256_of(about):
        raise ValueError(f"{_CHECKSUMS} does not match its checksum")
    return about["version"]


def _check_files(checkpoint: pathlib.Path) -> None:
    """Compares the files of a checkpoint with their checksums.

    Raises:
        ValueError: One is not as it was written.
    """
    for name, digest in json.loads((checkpoint / _CHECKSUMS).read_bytes())["files"].items():
        if not (checkpoint / name).is_file():
            raise ValueError(f"{name} is missing")
        if _sha256(checkpoint / name) != digest:
            raise ValueError(f"{name} does not match its checksum")


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    """Returns the first line of an error, which may be long."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [text for key in keys for text in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [f"{name} was {old!r}, now {new!r}"]
