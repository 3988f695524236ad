"""What surrounds the runs of a multirun, as a callback of Hydra: the same with any sweeper and launcher."""

import os
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from experiments.harness import command
from experiments.harness.lock import SWEEP_LOCK, Lock

_REPORT = re.compile(r"#(\d+) ")  # at the beginning of what `command.guarded` leaves of a run that failed


class Sweep(Callback):
    """Makes a multirun fit for any launcher, and reports the runs that failed at its end, with exit code 1.

    A command that does more around its runs has a subclass, named in `hydra.callbacks.sweep` of its configuration.
    """

    again = "These alone run again with"
    _lock: Lock | None = None  # of the directory, until the end

    def __getstate__(self) -> dict[str, Any]:
        """Returns what launchers send to workers, which do not hold the lock."""
        return {**vars(self), "_lock": None}

    def begin(self, config: DictConfig) -> None:
        """Prepares the runs; for subclasses.

        Args:
            config: The whole configuration of the multirun, which may be changed.
        """

    def end(self, config: DictConfig, failed: Sequence[str]) -> None:
        """Puts the results of the runs together; for subclasses.

        Args:
            config: The whole configuration of the multirun.
            failed: For each run that failed, its overrides and error.
        """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Prepares the configuration, locks the directory, and removes reports of an earlier try."""

        def begin() -> None:
            _prepare(config)
            directory = pathlib.Path(config.hydra.sweep.dir)
            try:
                directory.mkdir(parents=True, exist_ok=True)
                self._lock = Lock(directory / SWEEP_LOCK)
            except OSError as error:
                raise ValueError(f"hydra.sweep.dir must name a directory that can be written: {error}.") from error
            again = command_again(sys.orig_argv, "hydra.sweep.dir", config.hydra.sweep.dir)
            command.when_interrupted(lambda: f"The sweep resumes with\n  {again}")
            for path, _ in _reports(config):
                path.unlink()
            self.begin(config)

        if not _succeeds(begin):
            sys.exit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reports runs that failed, and how to start them again."""
        failed = [line for _, line in _reports(config)]
        is_complete = _succeeds(lambda: self.end(config, failed))
        if self._lock is not None:
            self._lock.release()
        if failed:
            count = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
            again = command_again(sys.orig_argv, "hydra.sweep.dir", config.hydra.sweep.dir)
            lines = [f"{count} failed:", *(f"  {line}" for line in failed), f"{self.again}:", f"  {again}"]
            print("\n".join(lines), file=sys.stderr)
        if failed or not is_complete:
            sys.exit(1)


def command_again(arguments: Sequence[str], option: str, directory: str, *overrides: str) -> str:
    """Returns a command for the shell, with another directory.

    Args:
        arguments: The command as it was.
        option: The option that names its directory.
        directory: The directory.
        overrides: Others that it has in place of its own.
    """
    changed = [*overrides, _override(option, directory)]
    names = tuple(f"{override.partition('=')[0]}=" for override in changed)
    return shlex.join([*(argument for argument in arguments if not argument.startswith(names)), *changed])


def _override(option: str, directory: str) -> str:
    """Returns an override for Hydra, which reads some characters of a value in its own way."""
    is_plain = re.fullmatch(r"[\w/.-]+", directory)
    return f"{option}={directory}" if is_plain else "{}='{}'".format(option, directory.replace("'", r"\'"))


def _prepare(config: DictConfig) -> None:
    """Makes the configuration of a multirun fit for any launcher.

    Its directory becomes absolute, since workers of a cluster may run in another one than the command. Ray starts no
    dashboard, and chooses the size of its object store, which runs do not use.
    """
    directory = os.path.abspath(config.hydra.sweep.dir)
    with flag_override(config, ["readonly", "struct"], False):
        config.hydra.sweep.dir = directory
        # Of these, launchers compose each run.
        config.hydra.overrides.hydra.append(_override("hydra.sweep.dir", directory))
        if "ray" in config.hydra.launcher:
            ray = config.hydra.launcher.ray
            ray.init = {"include_dashboard": False, "object_store_memory": None, **ray.init}


def _reports(config: DictConfig) -> Iterator[tuple[pathlib.Path, str]]:
    """Yields the path and the first line of each report of a run that failed, in the order of the runs."""
    found = {}
    for path in pathlib.Path(config.hydra.sweep.dir).rglob(command.ERROR_FILE):
        line = path.read_text().partition("\n")[0]
        if number := _REPORT.match(line):
            found[int(number[1]), path] = line
    for (_, path), line in sorted(found.items()):
        yield path, line


def _succeeds(function: Callable[[], None]) -> bool:
    """Calls a function and returns whether it succeeded; reports its error, which Hydra would make a warning."""
    try:
        function()
    except Exception as error:
        command.report(error)
        return False
    return True
