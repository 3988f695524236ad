"""A run of a command: its options, its output directory, what made its results, and where they are written."""

import contextlib
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.files import save_figures, write_csv, write_json
from experiments.harness.lock import RUN_LOCK, Lock
from experiments.harness.options import at_home, make, plain
from experiments.harness.resume import differences, identity
from experiments.harness.sweeps import command_again

if TYPE_CHECKING:
    from experiments.harness.files import Draw
    from experiments.harness.tracking import Tracker
    from phantom_jax import Phantom2D


class Run:
    """A run of a command.

    Attributes:
        name: The command's name.
        options: Its options as plain values.
        directory: Where its results go.
        tracker: Where they are sent, within `tracked`.
    """

    tracker: "Tracker"

    def __init__(self, name: str, config: DictConfig) -> None:
        """Describes the run of a configuration."""
        at_home(config)
        self.name = name
        self.options = plain(config)
        self.directory = command.output_directory()
        self._config = config
        self._locks = contextlib.ExitStack()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the run's directory.

        Raises:
            ValueError: One works there.
        """
        with self._locks:
            self._locks.enter_context(Lock(self.directory / RUN_LOCK))
            yield

    def resume_in(self, directory: pathlib.Path) -> None:
        """Takes over the directory of an earlier run, within `locked`.

        Raises:
            ValueError: Another process works there.
        """
        if not directory.samefile(self.directory):
            self._locks.enter_context(Lock(directory / RUN_LOCK))
            self.directory = directory

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """What makes the results; collected on first use, so that later changes of input files do not count."""
        from experiments.harness import provenance

        return provenance.collect(self._config)

    def arch(self) -> "Phantom2D":
        """Returns the accelerator of the options."""
        from phantom_jax import Phantom2D

        return make(Phantom2D, self.options["arch"], "arch")

    def identity(self, may_differ: Collection[str] = ()) -> dict[str, Any]:
        """Returns what a part of the results depends on; see `resume.identity`."""
        return identity(self.provenance, may_differ)

    @contextlib.contextmanager
    def tracked(self, resume_after: int | None = None) -> Iterator[None]:
        """Opens the tracker around the work of the run.

        Args:
            resume_after: The last step that the run has behind it; None if it begins.
        """
        from experiments.harness.tracking.options import tracked

        _ = self.provenance
        with tracked(self.options, self.name, self.directory, resume_after) as self.tracker:
            yield

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tracks a table."""
        self.tracker.table(name, rows)

    def figures(self, figures: Mapping[str, "Draw"]) -> None:
        """Draws, saves and tracks figures by name; one that fails is noted."""
        for name, path in save_figures(self.directory, figures).items():
            self.tracker.figure(name, path)

    def csv(self, rows: Sequence[dict[str, Any]]) -> None:
        """Writes `results.csv`."""
        write_csv(self.directory / "results.csv", rows)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes `results.json` when all else is written: the results, and what made them."""
        path = self.directory / "results.json"
        write_json(path, {"schema_version": 1, **self.provenance, **results})
        self.tracker.artifact("results", path, "results")

    def finished(self) -> dict[str, Any] | None:
        """Returns the results that a run of a multirun finds in its directory, None if it has none of its own."""
        path = self.directory / "results.json"
        if not command.in_multirun() or not path.exists():
            return None
        results = None
        try:
            results = json.loads(path.read_text())
            different = differences(identity(results), self.identity())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            different = [f"they do not say of what ({error!r})"]
        if different:
            command.note([f"{path} holds other results: {'; '.join(different)}. The command runs."])
            return None
        command.note([f"{path} holds these results already. The run is skipped."])
        return results


def main(
    name: str, value: Callable[[Mapping[str, Any]], Any] | None = None, resume: Sequence[str] | None = None
) -> Callable[..., Callable[[], Any]]:
    """Returns what makes the entry point of a command from a function of its run.

    The run's directory is locked meanwhile. In a multirun, a run whose directory holds its results is skipped. The
    directory is printed last.

    Args:
        name: The command's name, and that of its configuration.
        value: What a sweeper is given of the results, which the function returns.
        resume: Overrides with which the command resumes in its directory; None if it begins anew, but in a multirun.
    """

    def decorated(function: Callable[[Run], Any]) -> Callable[[], Any]:
        @functools.wraps(function)
        def body(config: DictConfig) -> Any:
            run = Run(name, config)
            if not command.in_multirun():
                command.when_interrupted(lambda: _how_to_resume(run.directory, resume))
            with run.locked():
                results = run.finished()
                if results is None:
                    _check_platforms()
                    results = function(run)
            print(run.directory, flush=True)
            return value(results) if value else None

        return hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name=name)(command.guarded(body))

    return decorated


def _how_to_resume(directory: pathlib.Path, resume: Sequence[str] | None) -> str:
    """Returns what a user who interrupted a command should know."""
    if resume is None:
        return "Nothing was kept."
    again = command_again(sys.orig_argv, "hydra.run.dir", str(directory), *resume)
    return f"The command resumes with\n  {again}"


def _check_platforms() -> None:
    """Checks the platforms that the environment asks of JAX, some of whose errors say nothing.

    Raises:
        ValueError: JAX cannot use one here.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        if wanted := os.environ.get("JAX_PLATFORMS"):
            raise ValueError(
                f"JAX_PLATFORMS must be platforms that JAX can use here, got {wanted!r}: "
                f"{str(error) or 'it finds no such device'}"
            ) from error
        raise
