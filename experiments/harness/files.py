"""Files that are whole or not there, whatever stops the process that writes them."""

import contextlib
import csv
import io
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from experiments.harness import command

if TYPE_CHECKING:
    import matplotlib.figure

Draw = Callable[[], "matplotlib.figure.Figure"]


def write_whole(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole or not at all: under a temporary name first, which then becomes its own.

    Args:
        path: The file.
        write: Writes the content to a file that it is given, open for bytes.

    Raises:
        OSError: It cannot be written; what was there before is left as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with named(path):
        try:
            with partial.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
    """Names a file in errors that name none, such as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def json_object(line: bytes) -> dict[str, Any] | None:
    """Returns the JSON object that a line of a file holds, None if it holds something else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write_csv(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a CSV file with a header, whole or not at all; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def save_figure(figure: "matplotlib.figure.Figure", path: pathlib.Path) -> pathlib.Path:
    """Saves a figure as PNG and as SVG, each whole or not at all; the same figure gives the same bytes.

    Args:
        figure: The figure.
        path: Where to, without a suffix.

    Returns:
        The path of the PNG.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "phantom_jax"}):
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            write_whole(
                path.with_suffix(f".{kind}"),
                lambda file, kind=kind, metadata=metadata: figure.savefig(
                    file, format=kind, dpi=100, metadata=metadata
                ),
            )
    return path.with_suffix(".png")


def save_figures(directory: pathlib.Path, figures: Mapping[str, Draw]) -> dict[str, pathlib.Path]:
    """Draws figures and saves them.

    Results matter more than their pictures: a figure that fails is noted on stderr with the reason, and the others are
    drawn.

    Args:
        directory: Where to.
        figures: What draws each figure, by its name.

    Returns:
        The path of the PNG of each figure that could be saved.
    """
    saved = {}
    for name, draw in figures.items():
        try:
            saved[name] = save_figure(draw(), directory / name)
        except Exception as error:
            print(f"Note: there is no figure {name}. The results do not depend on it.", file=sys.stderr)
            command.report(error)
    return saved
