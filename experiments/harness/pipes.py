"""Standard streams whose readers may leave: `scripts/run | head` runs to its end."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def readers_may_leave() -> Iterator[None]:
    """Drops what is printed once nobody reads it any more, in place of an error in the middle of the work."""
    streams: list[Any] = [stream and _Unbreakable(stream) for stream in (sys.stdout, sys.stderr)]  # None if closed
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            yield
        finally:
            for stream in filter(None, streams):
                stream.flush()


class _Unbreakable:
    """A stream that leads nowhere once its reader has left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._nowhere_if_broken():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._nowhere_if_broken():
            self._stream.flush()

    @contextlib.contextmanager
    def _nowhere_if_broken(self) -> Iterator[None]:
        """Sends what follows, and what is buffered, nowhere if the pipe has no reader."""
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
