"""What a tracker sends its backends, and which run it is about."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Value = int | float | str | None
Row = Mapping[str, Any]  # a cell is a value, or a list of cells


class Backend(Protocol):
    """Where a tracker sends what is logged. Arguments have been checked, and values are Python's own."""

    def log(self, values: Mapping[str, Value], step: int) -> None:
        """Takes a point of series. Steps never go back."""
        ...

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Takes final figures of the run."""
        ...

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Takes a table."""
        ...

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Takes a picture."""
        ...

    def artifact(self, name: str, path: pathlib.Path, kind: str) -> None:
        """Takes a file."""
        ...

    def close(self, failed: bool) -> None:
        """Ends the run; nothing comes after it."""
        ...


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which run this is.

    Raises:
        ValueError: `command` or `group` is not valid.
    """

    command: str  # what is run, such as "train"
    config: Mapping[str, Any]  # all of its settings, as plain values
    group: str | None = None  # what the run belongs to, such as a sweep

    def __post_init__(self) -> None:
        text("command", self.command)
        if self.group is not None:
            text("group", self.group)


def text(argument: str, value: Any, most: int = 128) -> str:
    """Returns `value` if it is a text of 1 to `most` characters.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, str) and 0 < len(value) <= most:
        return value
    raise ValueError(f"{argument} must be a text of 1 to {most} characters, got {value!r}.")
