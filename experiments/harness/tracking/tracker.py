"""The tracker: checks what a run logs, and sends it to backends that may fail without harm to the run."""

import contextlib
import functools
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, SupportsIndex

from experiments.harness.tracking.backend import Backend, Identity, Row, Value
from experiments.harness.tracking.json_lines import JsonLines
from experiments.harness.tracking.wandb_run import Wandb, WandbRun
from phantom_jax.checks import integer


class Tracker:
    """Sends what a run logs to all backends; used in a `with` statement, which ends the run.

    A backend that raises an exception, even on being opened, is noted on stderr and dropped: it never stops the run.
    Mistakes of the caller are raised, and reach no backend.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Backend]], resume_after: int | None = None) -> None:
        """Opens the backends.

        Args:
            openers: What opens each backend, by the name that users know it by.
            resume_after: The last step that the run has behind it; None if it begins.

        Raises:
            ValueError: `resume_after` is not a step.
        """
        self._least_step = 0 if resume_after is None else integer("resume_after", resume_after, minimum=0) + 1
        self._backends: dict[str, Backend] = {}
        for name, opener in openers.items():
            with self._guarded(name):
                self._backends[name] = opener()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def log(self, values: Mapping[str, Any], step: SupportsIndex) -> None:
        """Logs a point of series.

        Args:
            values: Numbers, texts or None by name; an array without axes counts as its number.
            step: When it was: the step of the last point or a later one.

        Raises:
            ValueError: A name, a value or the step is not valid.
        """
        point, at = _values(values), integer("step", step, minimum=0)
        if at < self._least_step:
            raise ValueError(f"step must be at least {self._least_step}, since steps never go back; got {at}.")
        self._least_step = at
        self._send(lambda backend: backend.log(point, at))

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Sets final figures of the run.

        Args:
            values: As in `log`.

        Raises:
            ValueError: A name or a value is not valid.
        """
        figures = _values(values)
        self._send(lambda backend: backend.summarize(figures))

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Logs a table.

        Args:
            name: Letters, digits and any of `_.-`.
            rows: Cells by column: values as in `log`, or lists of cells.

        Raises:
            ValueError: The name or a row is not valid.
        """
        _name("name", name)
        plain = [_row(f"rows[{index}]", row) for index, row in enumerate(rows)]
        self._send(lambda backend: backend.table(name, plain))

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Logs a picture.

        Args:
            name: As in `table`.
            path: Its file, such as a PNG.

        Raises:
            ValueError: The name is not valid, or there is no such file.
        """
        _name("name", name)
        _file(path)
        self._send(lambda backend: backend.figure(name, path))

    def artifact(self, name: str, path: pathlib.Path, kind: str) -> None:
        """Logs a file that the run has made.

        Args:
            name: As in `table`.
            path: The file. It is not copied, so it must stay as it is.
            kind: What it is, such as "masks"; like a name.

        Raises:
            ValueError: The name or the kind is not valid, or there is no such file.
        """
        _name("name", name)
        _name("kind", kind)
        _file(path)
        self._send(lambda backend: backend.artifact(name, path, kind))

    def close(self, failed: bool) -> None:
        """Ends the run, and closes the backends.

        Args:
            failed: Whether it ended in an error.
        """
        self._send(lambda backend: backend.close(failed))
        self._backends.clear()

    def _send(self, call: Callable[[Backend], None]) -> None:
        for name, backend in list(self._backends.items()):
            with self._guarded(name):
                call(backend)

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Reports an exception, and drops the backend that raised it."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"Note: tracking with {name} stopped: {reason}", file=sys.stderr)
            if name in self._backends:
                with contextlib.suppress(Exception):
                    self._backends.pop(name).close(failed=True)


def open_tracker(
    directory: pathlib.Path, identity: Identity, wandb: Wandb | None = None, resume_after: int | None = None
) -> Tracker:
    """Returns a tracker that writes `log.jsonl` and, if wanted, keeps a run with wandb.

    Where the directory holds an earlier run, its log begins anew or, with `resume_after`, continues: points up to that
    step stay; later ones and what has no step are dropped, as the run logs them again, and so is a line that was not
    finished. What was logged is in the file even if the process is killed thereafter. So if a run logs each step before
    it saves the step's checkpoint, and resumes after the step that it restored, the log has every step exactly once.
    With wandb, the run keeps its identifier, but may lack the last points before a process was killed, which wandb
    writes with a delay.

    Args:
        directory: Where to; it must exist.
        identity: Which run it is.
        wandb: Options of wandb; None for a log alone.
        resume_after: The last step that the run has behind it; None if it begins.

    Raises:
        ValueError: `resume_after` is not a step.
    """
    openers: dict[str, Callable[[], Backend]] = {
        "log.jsonl": functools.partial(JsonLines, directory / "log.jsonl", identity, resume_after)
    }
    if wandb is not None and wandb.mode != "disabled":
        openers["wandb"] = functools.partial(WandbRun, directory, identity, wandb)
    return Tracker(openers, resume_after)


def logged_group(directory: pathlib.Path) -> str | None:
    """Returns the group of the run that a directory's `log.jsonl` is of; None without one, or without such a log."""
    try:
        with (directory / "log.jsonl").open() as file:
            return json.loads(file.readline())["group"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _values(values: Any) -> dict[str, Value]:
    if not isinstance(values, Mapping):
        raise ValueError(f"values must be a mapping of names to values, got {values!r}.")
    for name in values:
        if not isinstance(name, str) or not name or name == "step" or name.startswith("_"):
            raise ValueError(f"a name of a value must be a text other than step and not begin with _, got {name!r}.")
    return {name: _value(name, value) for name, value in values.items()}


def _value(argument: str, value: Any) -> Value:
    """Returns a value as one of Python's own."""
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    if plain is None or isinstance(plain, (int, float, str)):
        return plain
    raise ValueError(f"{argument} must be a number, a text or None, got {value!r}.")


def _row(argument: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not all(isinstance(column, str) for column in row):
        raise ValueError(f"{argument} must be a mapping of columns' names to cells, got {row!r}.")
    return {column: _cell(f"{argument}[{column!r}]", cell) for column, cell in row.items()}


def _cell(argument: str, cell: Any) -> Any:
    if isinstance(cell, (list, tuple)):
        return [_cell(argument, entry) for entry in cell]
    return _value(argument, cell)


def _name(argument: str, name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name):
        raise ValueError(f"{argument} must be of 1 to 128 letters, digits and any of _.-, got {name!r}.")


def _file(path: Any) -> None:
    if not isinstance(path, pathlib.Path) or not path.is_file():
        raise ValueError(f"path must be the pathlib.Path of a file, got {path!r}.")
