"""The backend that writes `log.jsonl`, in the format that the package describes."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import phantom_jax
from experiments.harness.files import write_whole
from experiments.harness.tracking.backend import Identity, Row, Value


class JsonLines:
    """A file of JSON lines."""

    def __init__(self, path: pathlib.Path, identity: Identity, resume_after: int | None) -> None:
        """Begins a file, or continues one.

        Args:
            path: The file.
            identity: Which run it is.
            resume_after: The last step whose points are kept; None to keep nothing.

        Raises:
            ValueError: The file to continue is damaged, other than in an unfinished last line.
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


def _points(path: pathlib.Path, last: int | None) -> list[bytes]:
    """Returns the lines of the points of a file, up to a step."""
    if last is None or not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        del lines[-1]
    try:
        return [line for line in lines[1:] if json.loads(line).get("step", math.inf) <= last]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} must hold a JSON object on each line: {error}") from error


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
