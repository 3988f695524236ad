"""The backend that keeps a run with wandb, which is imported only once there is one."""

import dataclasses
import functools
import http.client
import os
import pathlib
import queue
import re
import secrets
import shlex
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.harness.files import write_whole
from experiments.harness.tracking.backend import Identity, Row, Value, text
from phantom_jax.checks import one_of

MODES = ("online", "offline", "disabled")
_DATA_DIRECTORY = "WANDB_DATA_DIR"
_SECONDS = 30.0  # to wait for the server, online


@dataclasses.dataclass(frozen=True)
class Wandb:
    """How a run is kept with wandb.

    Raises:
        ValueError: An option is not valid.
    """

    mode: str = "offline"  # one of MODES
    project: str = "phantom_jax"
    entity: str | None = None  # None: that of the login
    name: str | None = None  # of the run; None: wandb makes one up
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        one_of("mode", self.mode, MODES)
        if re.search(r"[/\\#?%:]", text("project", self.project)):
            raise ValueError(f"project must be a text without any of / \\ # ? % :, got {self.project!r}.")
        for option in ("entity", "name"):
            if getattr(self, option) is not None:
                text(option, getattr(self, option))
        if isinstance(self.tags, str) or not isinstance(self.tags, Sequence):
            raise ValueError(f"tags must be a list of texts, got {self.tags!r}.")
        for index, tag in enumerate(self.tags):
            text(f"tags[{index}]", tag, most=64)


class WandbRun:
    """A run of wandb, with its files in `wandb/` of a directory."""

    def __init__(self, directory: pathlib.Path, identity: Identity, options: Wandb) -> None:
        """Starts a run, or resumes the one that the directory holds.

        A run that is to be online, but cannot be, is kept offline, and a note says how to upload it.

        Args:
            directory: Where to.
            identity: Which run it is.
            options: Options.

        Raises:
            ImportError: wandb cannot be imported.
            Exception: Whatever wandb raises.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which goes to the network, be the mode offline
        try:
            import wandb
        except ImportError as error:
            raise ImportError(f"it cannot be imported ({error}): pip install wandb, or set tracking=none.") from error
        start = functools.partial(
            wandb.init,
            project=options.project,
            entity=options.entity,
            name=options.name,
            tags=tuple(options.tags),
            group=identity.group,
            job_type=identity.command,
            config=dict(identity.config),
            dir=directory,
            id=_identifier(directory / "wandb" / "run_id"),
            resume="allow",
            reinit="create_new",  # else a run that could not be closed would take in those that follow
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                init_timeout=_SECONDS,
            ),
        )
        run, trouble = None, None
        if options.mode == "online":
            run, trouble = _online(start, wandb.setup().settings.base_url)
        self._run = run or start(mode="offline")
        if trouble:
            copy = shlex.quote(str(pathlib.Path(self._run.dir).parent))
            print(f"Note: wandb keeps this run offline: {trouble}. `wandb sync {copy}` uploads it.", file=sys.stderr)
        self._wandb = wandb
        # Tables would leave files in the user's home, without which the directory could not be synced elsewhere.
        self._has_data_directory = _DATA_DIRECTORY not in os.environ
        if self._has_data_directory:
            os.environ[_DATA_DIRECTORY] = str(directory / "wandb")

    def log(self, values: Mapping[str, Value], step: int) -> None:
        """Logs a point."""
        self._run.log(dict(values), step=step)

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Sets final figures."""
        self._run.summary.update(dict(values))

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Logs a table at the current step, as `tables/NAME`."""
        columns: list[Any] = list(dict.fromkeys(column for row in rows for column in row))
        cells: list[Any] = [[row.get(column) for column in columns] for row in rows]
        table = self._wandb.Table(columns, cells, allow_mixed_types=True)
        self._run.log({f"tables/{name}": table}, commit=False)

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Logs a picture at the current step, as `figures/NAME`."""
        self._run.log({f"figures/{name}": self._wandb.Image(str(path))}, commit=False)

    def artifact(self, name: str, path: pathlib.Path, kind: str) -> None:
        """Logs a file, which is not copied."""
        artifact = self._wandb.Artifact(name, kind)
        artifact.add_file(str(path), skip_cache=True, policy="immutable")
        self._run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        """Ends the run."""
        if self._has_data_directory:
            del os.environ[_DATA_DIRECTORY]
        self._run.finish(exit_code=int(failed))


def _online(start: Callable[..., Any], url: str) -> tuple[Any, str | None]:
    """Returns a run that is sent to a server, or None and why there is none."""
    trouble = unreachable(url)
    if trouble:
        return None, f"{url} cannot be reached ({trouble})"
    try:
        return start(mode="online"), None
    except Exception as error:  # whatever wandb raises, such as without a login
        return None, " ".join(str(error).split()).rstrip(".") or type(error).__name__


def unreachable(url: str, seconds: float = 5.0) -> str | None:
    """Returns why a server does not answer; None if it does, whatever it says.

    wandb itself would try again and again until its own time is over.

    Args:
        url: Of the server; proxies are those of the environment.
        seconds: How long to wait, be it for the server or for its address.
    """
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, ssl.SSLError):  # wandb may know other certificates
                answers.put(str(reason))
                return
        except (ValueError, http.client.HTTPException):  # it answers, or wandb says what is wrong with the address
            pass
        answers.put(None)

    threading.Thread(target=ask, daemon=True).start()  # no other time limit holds for a name server
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return f"no answer within {seconds:g} s"


def _identifier(path: pathlib.Path) -> str:
    """Returns the run's identifier, which a file keeps for when it is resumed."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(secrets.token_hex(8).encode()))
    return path.read_text()
