"""Files that are whole or not there, whatever stops the process that writes them."""

import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO


def write_whole(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole or not at all: under a temporary name first, which then becomes its own.

    Args:
        path: The file.
        write: Writes the content to a file that it is given, open for bytes.

    Raises:
        OSError: It cannot be written; what was there before is left as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
