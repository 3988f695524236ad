"""What all entry points share: errors that a user can read, the directory, notes."""

import contextlib
import errno
import functools
import importlib.metadata
import io
import logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.harness.pipes import readers_may_leave
from experiments.harness.signals import Terminated, terminable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

_ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG_PATH = str(_ROOT / "conf")
ERROR_FILE = "error.txt"
_FULL_ERROR = "HYDRA_FULL_ERROR"
# Runtime errors: no such backend of JAX, or no memory on it. Import errors: an extra that is not installed.
_USER_ERRORS = (ValueError, OSError, ImportError, MemoryError, RuntimeError, HydraException, OmegaConfBaseException)
# Of Hydra's plugins.
_EXTRAS = {"optuna": "sweep", "joblib": "sweep"} | dict.fromkeys(("ray", "submitit_local", "submitit_slurm"), "cluster")
_PLUGIN = re.compile(r"Could not find 'hydra/(?:launcher|sweeper)/(\w+)'")


_COMPLETION = re.compile(r"Install or Uninstall shell completion:.*?(?=\n--config-path)", re.DOTALL)  # in Hydra's help


class RunFailedError(HydraException):
    """A run ended in an error that its user has seen; launchers bring it back from other processes."""


def guarded(function: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wraps the body of a command, so that an error is shown at once, even in the middle of a multirun.

    It runs in the directory where the command was typed, wherever a launcher put it. In a multirun, a run that fails
    leaves its error in its directory, for `experiments.harness.sweeps`.
    """

    @functools.wraps(function)
    def wrapped(config: DictConfig) -> Any:
        # One reports every backend that it does not find, the other every file of a checkpoint.
        for name in ("jax._src.xla_bridge", "absl"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            os.chdir(HydraConfig.get().runtime.cwd)
            (output_directory() / ERROR_FILE).unlink(missing_ok=True)  # of an earlier try
            with readers_may_leave():  # in a worker of a launcher, too
                return function(config)
        except Exception as error:
            if not in_multirun():
                if _FULL_ERROR_WANTED or not isinstance(error, _USER_ERRORS):
                    raise
                _show(error)
                raise RunFailedError(text_of(error)) from error
            _leave(error)
            if HydraConfig.get().runtime.choices["hydra/sweeper"] == "basic":
                return None  # the basic sweeper would start no others
            raise RunFailedError(text_of(error)) from error  # others want a value, or decide how many may fail

    return wrapped


@readers_may_leave()
@terminable()
def run(main: Callable[[], Any]) -> None:
    """Runs a `hydra.main` function. Mistakes of the user end in a line or two and exit code 1, bugs in a traceback.

    Hydra itself prints a traceback where, say, the output directory cannot be made; it hands errors over only if it
    is asked for full ones.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports its use over the network
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a notebook exports its own, which may not be installed here
    if "--version" in sys.argv[1:]:  # in place of Hydra's
        print(f"phantom_jax {importlib.metadata.version('phantom-jax')}")
        return
    sys.argv[1:] = map(with_home, sys.argv[1:])
    if _FULL_ERROR_WANTED:
        main()
        return
    os.environ[_FULL_ERROR] = "1"
    try:
        if "--hydra-help" in sys.argv[1:]:
            _print_hydra_help(main)
        else:
            main()
    except RunFailedError:
        sys.exit(1)
    except _USER_ERRORS as error:
        _show(error)
        if any(
            isinstance(e, OSError) and (e.filename or e.errno == errno.ENOSPC) and not isinstance(e, HydraException)
            for e in (error, error.__cause__)
        ):
            print("hydra.run.dir (or hydra.sweep.dir) must name a directory that can be written.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as error:
        what, code = ("Terminated.", 143) if isinstance(error, Terminated) else ("Interrupted.", 130)
        print(what, *(say() for say in _when_interrupted), file=sys.stderr)
        sys.exit(code)
    finally:
        os.environ.pop(_FULL_ERROR, None)


def with_home(argument: str) -> str:
    """Returns an override with the user's home in place of `~`, which shells leave there and Hydra refuses."""
    return re.sub(r"(?<=[=,\[])~(?=[/,\]]|$)", lambda _: os.path.expanduser("~"), argument)


def _print_hydra_help(main: Callable[[], Any]) -> None:
    """Prints Hydra's help with this repository's version and completion; Hydra's does not know `python -m`."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            main()
    finally:
        text = re.sub("Show Hydra's version", "Show the version of phantom_jax", shown.getvalue())
        print(_COMPLETION.sub(f"Tab completion. In Bash: source {_ROOT / 'scripts' / 'completion'}\n", text), end="")


def when_interrupted(say: Callable[[], str]) -> None:
    """Sets what says how to resume, should this command be interrupted."""
    _when_interrupted[:] = [say]


def in_multirun() -> bool:
    """Returns whether the run is one of a sweep."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def text_of(error: BaseException) -> str:
    """Returns what an error says, with its kind where that is not a mistake of the user."""
    if isinstance(error, _USER_ERRORS) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def note(notes: Iterable[str]) -> None:
    """Prints notes, whatever they hold, each on a line."""
    from rich.console import Console

    console = Console()
    for note in notes:
        console.print(f"Note: {note}", highlight=False, markup=False, emoji=False, soft_wrap=True)


def progress(*columns: "ProgressColumn") -> "Progress":
    """Returns a progress bar on the standard error, which vanishes at its end.

    Args:
        *columns: Of `rich.progress`; its own by default.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


def output_directory() -> pathlib.Path:
    """Returns the directory of the run."""
    return pathlib.Path(HydraConfig.get().runtime.output_dir)


_when_interrupted: list[Callable[[], str]] = []
_FULL_ERROR_WANTED = os.environ.get(_FULL_ERROR) == "1"


def report(error: Exception) -> None:
    """Prints an error: a mistake of the user in a line or two, a bug with its traceback."""
    if _FULL_ERROR_WANTED or not isinstance(error, _USER_ERRORS):
        traceback.print_exception(error)
    else:
        _show(error)


def _leave(error: Exception) -> None:
    """Prints the error of a run of a multirun, and leaves it in the directory of the run, after its overrides."""
    hydra_config, path, lines = HydraConfig.get(), output_directory() / ERROR_FILE, text_of(error).splitlines()
    first = f"#{hydra_config.job.num} {' '.join(hydra_config.overrides.task)}: {lines[0]}"
    path.write_text("\n".join([first, "", *traceback.format_exception(error)]))
    if isinstance(error, _USER_ERRORS):
        _show(error, f"{path} shows where it was raised.")
    else:
        traceback.print_exception(error)


def _show(error: BaseException, where: str = f"{_FULL_ERROR}=1 shows where it was raised.") -> None:
    """Prints an error for people: what is wrong, and how to see where."""
    lines = [text_of(error)]
    if isinstance(error.__cause__, OSError):
        lines.append(str(error.__cause__))
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        lines.append(str(error.__cause__))
    plugin = _PLUGIN.search(lines[0])
    if plugin and (extra := _EXTRAS.get(plugin[1])):
        lines = [f"{plugin[1]} needs the extra {extra}: scripts/setup all, or pip install phantom-jax[{extra}]"]
    print(f"Error: {os.linesep.join(lines)}", file=sys.stderr)
    print(f"({where})", file=sys.stderr)
