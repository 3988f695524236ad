"""The backend that writes `log.jsonl`, in the format that the package describes."""

import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import phantom_jax
from experiments.harness.files import json_object, write_whole
from experiments.harness.tracking.backend import Identity, Row, Value


class JsonLines:
    """A file of JSON lines."""

    def __init__(self, path: pathlib.Path, identity: Identity, resume_after: int | None) -> None:
        """Begins a file, or continues one; lines that cannot be read are left out with a note.

        Args:
            path: The file.
            identity: Which run it is.
            resume_after: The last step whose points are kept; None to keep nothing.

        Raises:
            OSError: It cannot be written.
        """
        first = {
            "command": identity.command,
            "group": identity.group,
            "version": phantom_jax.__version__,
            "config": identity.config,
        }
        whole = b"".join([_line(first), *_points(path, resume_after)])
        write_whole(path, lambda file: file.write(whole))
        self._directory = path.parent
        self._file = path.open("ab")

    def log(self, values: Mapping[str, Value], step: int) -> None:
        """Writes a point."""
        self._write({"step": step, **values})

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Writes final figures."""
        self._write({"summary": values})

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Writes a table."""
        self._write({"table": name, "rows": rows})

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Writes where a picture is."""
        self._write({"figure": name, "file": self._relative(path)})

    def artifact(self, name: str, path: pathlib.Path, kind: str) -> None:
        """Writes where a file is."""
        self._write({"artifact": name, "kind": kind, "file": self._relative(path)})

    def close(self, failed: bool) -> None:
        """Writes how the run ended, and closes the file."""
        with self._file:
            self._write({"failed": failed})

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(_line(record))
        self._file.flush()

    def _relative(self, path: pathlib.Path) -> str:
        return str(path.relative_to(self._directory) if path.is_relative_to(self._directory) else path)


def read_points(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the points of a log in order; a log that could not be written has none, nor has a line of garbage."""
    try:
        _, *lines = _whole_lines(path)
    except (OSError, ValueError):
        return []
    return [point for point in map(_record, lines) if point and "step" in point]


def _points(path: pathlib.Path, last: int | None) -> list[bytes]:
    """Returns the lines of the points of a file, up to a step, and notes lines of garbage."""
    if last is None or not path.exists():
        return []
    _, *lines = _whole_lines(path) or [b""]  # the first is the run's identity, which is written anew
    records = [_record(line) for line in lines]
    if garbage := [number for number, record in enumerate(records, 2) if record is None]:
        count = "1 line" if len(garbage) == 1 else f"{len(garbage)} lines"
        where = f"{path} has {count} that cannot be read, the first of them line {garbage[0]}"
        print(f"Note: {where}; the log continues without them and their steps.", file=sys.stderr)
    pairs = zip(lines, records, strict=True)
    return [line for line, record in pairs if record is not None and record.get("step", math.inf) <= last]


def _whole_lines(path: pathlib.Path) -> list[bytes]:
    """Returns the lines of a file but for one that was not finished."""
    return [line + b"\n" for line in path.read_bytes().split(b"\n")[:-1]]


def _record(line: bytes) -> dict[str, Any] | None:
    """Returns what a line says, None if it is garbage."""
    record = json_object(line)
    return None if record is None or not isinstance(record.get("step", 0), int) else record


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(_finite(record), allow_nan=False).encode() + b"\n"


def _finite(value: Any) -> Any:
    """Returns a value with strings in place of the numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
