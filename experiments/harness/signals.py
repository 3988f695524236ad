"""Signals that end a command: what it holds is closed, and training saves its state first."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as batch systems do."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM end the work as SIGINT does, so that everything is closed."""
    with _handled(_end, signal.SIGTERM):
        yield


@contextlib.contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Yields what says whether to end after this step, as the first signal asks for; a second one ends at once.

    Raises:
        KeyboardInterrupt: At its end, if a signal came.
    """
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            _end(number, frame)
        received.append(number)
        with contextlib.suppress(OSError):
            os.write(2, b"Saves the state after this step and ends. A second signal ends at once.\n")

    with _handled(receive, signal.SIGINT, signal.SIGTERM):
        yield lambda: bool(received)
    if received:
        _end(received[0], None)


def _end(number: int, frame: Any) -> None:
    del frame
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Has signals handled, which is possible in the main thread alone."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if is_main else {}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
