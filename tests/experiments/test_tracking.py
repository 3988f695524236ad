"""Tracking: the log, backends that fail, and runs of wandb as they are found on disk."""

import collections
import functools
import http.server
import json
import math
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import phantom_jax
from experiments.harness.tracking import Identity, Tracker, Wandb, logged_group, open_tracker, read_points
from experiments.harness.tracking.wandb_run import unreachable
from tests.experiments import commands

IDENTITY = Identity("train", {"seed": 0, "rate": math.inf}, group="sweep")
FIGURES = ("stack", "speedups", "mesh")
METHODS = ("log", "summarize", "table", "figure", "artifact", "close")


def lines(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the records of a log, which must be JSON as other languages know it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (directory / "log.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def tell_all(tracker: Tracker, directory: pathlib.Path) -> None:
    """Calls every method but `close`."""
    (directory / "masks.npz").write_bytes(b"masks")
    (directory / "stack.png").write_bytes(b"picture")
    tracker.log({"loss": 0.5}, step=1)
    tracker.summarize({"cycles": 7})
    tracker.table("layers", [{"layer": "c1"}])
    tracker.figure("stack", directory / "stack.png")
    tracker.artifact("masks", directory / "masks.npz", "masks")


def test_a_log_holds_what_was_logged_in_order(tmp_path: pathlib.Path) -> None:
    with open_tracker(tmp_path, IDENTITY) as tracker:
        tell_all(tracker, tmp_path)
        tracker.log({"loss": np.float32(0.25), "cycles": jnp.int32(3), "kind": "iid", "ratio": None}, np.int64(1))
        tracker.log({"loss": math.nan, "low": -math.inf, "high": jnp.inf}, step=4)
        tracker.table("slopes", [{"layer": "c2", "slopes": (1.0, math.nan)}, {"layer": None, "slopes": []}])
        tracker.figure("elsewhere", pathlib.Path(__file__))
    assert lines(tmp_path) == [
        {
            "command": "train",
            "group": "sweep",
            "version": phantom_jax.__version__,
            "config": {"seed": 0, "rate": "Infinity"},
        },
        {"step": 1, "loss": 0.5},
        {"summary": {"cycles": 7}},
        {"table": "layers", "rows": [{"layer": "c1"}]},
        {"figure": "stack", "file": "stack.png"},
        {"artifact": "masks", "kind": "masks", "file": "masks.npz"},
        {"step": 1, "loss": 0.25, "cycles": 3, "kind": "iid", "ratio": None},
        {"step": 4, "loss": "NaN", "low": "-Infinity", "high": "Infinity"},
        {"table": "slopes", "rows": [{"layer": "c2", "slopes": [1.0, "NaN"]}, {"layer": None, "slopes": []}]},
        {"figure": "elsewhere", "file": __file__},
        {"failed": False},
    ]


def test_each_record_is_on_disk_once_it_was_logged(tmp_path: pathlib.Path) -> None:
    with open_tracker(tmp_path, IDENTITY) as tracker:
        for step in range(3):
            tracker.log({"loss": 0.0}, step)
            assert lines(tmp_path)[-1] == {"step": step, "loss": 0.0}


def test_a_run_that_fails_says_so(tmp_path: pathlib.Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_tracker(tmp_path, IDENTITY) as tracker:  # noqa: PT012
        tracker.log({"loss": 0.0}, 0)
        raise KeyboardInterrupt
    assert lines(tmp_path)[1:] == [{"step": 0, "loss": 0.0}, {"failed": True}]


@given(
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(1, 3),
    st.floats(0, 1),
)
def test_a_resumed_log_has_every_step_once(
    tmp_path_factory: pytest.TempPathFactory, saved: int, more: int, points: int, share: float
) -> None:
    """However many bytes of what follows the checkpoint's step were written before the process was killed."""
    directory = tmp_path_factory.mktemp("log")

    path, sizes = directory / "log.jsonl", []

    def run(first: int, last: int, resume_after: int | None) -> None:
        with open_tracker(directory, Identity("train", {"steps": last}), resume_after=resume_after) as tracker:
            tracker.table("layers", [{"layer": "c1"}])
            for step in range(first, last + 1):
                for point in range(points):
                    tracker.log({"loss": step / 3, "point": point}, step)
                sizes.append(path.stat().st_size)
            tracker.summarize({"steps": last})

    run(0, saved + more, None)
    os.truncate(path, sizes[saved] + round(share * (path.stat().st_size - sizes[saved])))
    run(saved + 1, saved + 4, saved)
    head, *rest = [record for record in lines(directory) if "step" not in record]
    assert head["config"] == {"steps": saved + 4}
    assert rest == [
        {"table": "layers", "rows": [{"layer": "c1"}]},
        {"summary": {"steps": saved + 4}},
        {"failed": False},
    ]
    logged = [{"step": step, "loss": step / 3, "point": point} for step in range(saved + 5) for point in range(points)]
    assert [record for record in lines(directory) if "step" in record] == logged


def test_a_killed_run_loses_no_step(tmp_path: pathlib.Path) -> None:
    program = f"""
import os, pathlib, signal
from experiments.harness.tracking import Identity, open_tracker
tracker = open_tracker(pathlib.Path({str(tmp_path)!r}), Identity("train", {{}}))
for step in range(8):
    tracker.log({{"loss": 1.0}}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=commands.ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with open_tracker(tmp_path, IDENTITY, resume_after=5) as tracker:
        with pytest.raises(ValueError, match=r"step must be at least 6, since steps never go back; got 5\."):
            tracker.log({"loss": 2.0}, 5)
        for step in range(6, 10):
            tracker.log({"loss": 2.0}, step)
    assert [(record["step"], record["loss"]) for record in lines(tmp_path)[1:-1]] == [
        *((step, 1.0) for step in range(6)),
        *((step, 2.0) for step in range(6, 10)),
    ]


def test_a_log_begins_anew_without_a_step_to_resume_after(tmp_path: pathlib.Path) -> None:
    for loss in (1.0, 2.0):
        with open_tracker(tmp_path, IDENTITY) as tracker:
            tracker.log({"loss": loss}, 3)
    assert lines(tmp_path)[1:] == [{"step": 3, "loss": 2.0}, {"failed": False}]


def test_there_may_be_no_log_to_resume(tmp_path: pathlib.Path) -> None:
    with open_tracker(tmp_path, IDENTITY, resume_after=2) as tracker:
        tracker.log({"loss": 1.0}, 3)
    assert [record["step"] for record in lines(tmp_path)[1:-1]] == [3]


@pytest.mark.parametrize(
    "damage",
    [b'{"step": 1, "lo{"step": 2}\n', b"\0\0\0\n", b"[1]\n", b'{"step": "1"}\n', b"\xff\n", b"[" * 100_000 + b"\n"],
)
def test_a_line_of_a_log_that_is_garbage_is_left_out_with_a_note(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{}\n{"step": 1}\n' + damage + b'{"step": 3}\n{"step": 4}\n{"st')
    assert read_points(path) == [{"step": 1}, {"step": 3}, {"step": 4}]
    with open_tracker(tmp_path, IDENTITY, resume_after=3) as tracker:
        tracker.log({"loss": 1.0}, 4)
    assert lines(tmp_path)[1:] == [{"step": 1}, {"step": 3}, {"step": 4, "loss": 1.0}, {"failed": False}]
    noted = "has 1 line that cannot be read, the first of them line 3; the log continues without them and their steps."
    assert capsys.readouterr().err == f"Note: {path} {noted}\n"


def test_a_log_of_many_garbage_lines_has_one_note(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"no identity\n" + b"x\n" * 500 + b'{"step": 3}\n')
    with open_tracker(tmp_path, IDENTITY, resume_after=3):
        pass
    assert lines(tmp_path)[1:] == [{"step": 3}, {"failed": False}]
    noted = "has 500 lines that cannot be read, the first of them line 2; the log continues without them and their "
    assert capsys.readouterr().err == f"Note: {path} {noted}steps.\n"


def test_a_log_that_could_not_be_written_has_no_points(tmp_path: pathlib.Path) -> None:
    assert read_points(tmp_path / "none") == []
    assert read_points(tmp_path) == []


class Recorder:
    """A backend that keeps the names of what was called, and may raise an exception in one method."""

    def __init__(self, fails: str | None = None, error: BaseException | None = None) -> None:
        self.fails, self.error = fails, error or RuntimeError("no space\nleft")
        self.called: list[str] = []
        if fails == "open":
            raise self.error
        for method in METHODS:
            setattr(self, method, functools.partial(self._record, method))

    def _record(self, method: str, *_: Any, **__: Any) -> None:
        self.called.append(method)
        if method == self.fails:
            raise self.error


@pytest.mark.parametrize("fails", ["open", *METHODS])
def test_a_backend_that_fails_is_dropped_and_the_run_continues(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    made: dict[str, Recorder] = {}

    def opener(name: str, *arguments: Any) -> Callable[[], Any]:
        return lambda: made.setdefault(name, Recorder(*arguments))

    with Tracker({"first": opener("first"), "bad": opener("bad", fails), "last": opener("last")}) as tracker:
        tell_all(tracker, tmp_path)
        tell_all(tracker, tmp_path)
    assert made["first"].called == made["last"].called == [*METHODS[:-1] * 2, "close"]
    assert capsys.readouterr().err == "Note: tracking with bad stopped: no space left\n"
    if fails != "open":
        until = METHODS.index(fails) + 1
        assert made["bad"].called == [*METHODS[:until], "close"] if fails != "close" else [*METHODS[:-1] * 2, "close"]


def test_nothing_is_sent_once_closed(tmp_path: pathlib.Path) -> None:
    backend: Any = Recorder()
    tracker = Tracker({"only": lambda: backend})
    tracker.close(failed=False)
    tell_all(tracker, tmp_path)
    tracker.close(failed=False)
    assert backend.called == ["close"]


@pytest.mark.parametrize("fails", ["open", *METHODS])
def test_an_interruption_passes_through(tmp_path: pathlib.Path, fails: str) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        Tracker({"bad": lambda: cast(Any, Recorder(fails, KeyboardInterrupt()))}) as tracker,
    ):
        tell_all(tracker, tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.log({"loss": 1.0}, -1), "step must be a non-negative integer, got -1."),
        (lambda t: t.log({"loss": 1.0}, 1.5), "step must be a non-negative integer, got 1.5."),
        (lambda t: t.log({"loss": np.ones(2)}, 0), "loss must be a number, a text or None, got array([1., 1.])."),
        (lambda t: t.log({"loss": 1j}, 0), "loss must be a number, a text or None, got 1j."),
        (lambda t: t.log({"step": 1}, 0), "must be a text other than step and not begin with _, got 'step'."),
        (lambda t: t.log({"_step": 1}, 0), "must be a text other than step and not begin with _, got '_step'."),
        (lambda t: t.log([1.0], 0), "values must be a mapping of names to values, got [1.0]."),
        (lambda t: t.summarize({3: 1.0}), "must be a text other than step and not begin with _, got 3."),
        (lambda t: t.table("a/b", []), "name must be of 1 to 128 letters, digits and any of _.-, got 'a/b'."),
        (lambda t: t.table("a", ["b"]), "rows[0] must be a mapping of columns' names to cells, got 'b'."),
        (lambda t: t.table("a", [{"b": [{}]}]), "rows[0]['b'] must be a number, a text or None, got {}."),
        (lambda t: t.figure("a", pathlib.Path("none.png")), "path must be the pathlib.Path of a file, got"),
        (lambda t: t.artifact("a", "masks.npz", "b"), "path must be the pathlib.Path of a file, got 'masks.npz'."),
        (lambda t: t.artifact("a", pathlib.Path(__file__), ""), "kind must be of 1 to 128 letters"),
        (lambda _: Tracker({}, resume_after=-1), "resume_after must be a non-negative integer, got -1."),
        (lambda _: Identity("", {}), "command must be a text of 1 to 128 characters, got ''."),
        (lambda _: Identity("a", {}, group=""), "group must be a text of 1 to 128 characters, got ''."),
        (lambda _: Wandb(mode="foo"), "mode must be one of online, offline, disabled, got 'foo'."),
        (lambda _: Wandb(project="a/b"), "project must be a text without any of / \\ # ? % :, got 'a/b'."),
        (lambda _: Wandb(entity=""), "entity must be a text of 1 to 128 characters, got ''."),
        (lambda _: Wandb(name=""), "name must be a text of 1 to 128 characters, got ''."),
        (lambda _: Wandb(tags="a"), "tags must be a list of texts, got 'a'."),
        (lambda _: Wandb(tags=["a" * 65]), "tags[0] must be a text of 1 to 64 characters, got 'aaa"),
    ],
)
def test_mistakes_are_raised_and_reach_no_backend(call: Callable[[Tracker], Any], message: str) -> None:
    backend: Any = Recorder()
    with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold brackets
        call(Tracker({"only": lambda: backend}))
    assert message in str(error.value)
    assert backend.called == []


def wandb_records(path: pathlib.Path) -> Iterator[Any]:
    """Yields the records of a `.wandb` file: a LevelDB log, with a header of 7 bytes before its first record."""
    from wandb.proto import wandb_internal_pb2 as proto

    data, at, parts = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # the rest of a block is too short for a record
            at += 2**15 - at % 2**15
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield proto.Record.FromString(parts)  # pyright: ignore[reportAttributeAccessIssue] - made at run time
            parts = b""


def read_wandb(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the runs of wandb that an output directory holds."""
    runs = []
    for path in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        found: dict[str, Any] = {"points": [], "summary": {}}
        for record in wandb_records(path):
            match record.WhichOneof("record_type"):
                case "run":
                    found["run"] = record.run
                    found["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                case "history":
                    items = record.history.item
                    point = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
                    found["points"].append(point)
                case "summary":
                    updates = record.summary.update
                    found["summary"] |= {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates
                    }
                case "artifact":
                    found.setdefault("artifacts", {})[record.artifact.name] = record.artifact
                case "exit":
                    found["exit_code"] = record.exit.exit_code
        runs.append(found)
    return runs


@pytest.fixture
def quiet_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """Lets wandb think that its server is here, and fails if anything calls it; the environment for that."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")  # so that it is put back
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "WANDB_API_KEY": "0" * 40,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield environment
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_run_of_wandb_is_resumed_under_its_identifier(
    tmp_path: pathlib.Path, quiet_network: Mapping[str, str]
) -> None:
    import wandb

    with pytest.raises(KeyError), open_tracker(tmp_path, IDENTITY, Wandb(tags=["a"], name="b")) as tracker:  # noqa: PT012
        tracker.log({"loss": 0.5, "kind": "iid", "none": None}, step=3)
        tracker.log({"loss": math.nan}, step=5)
        tracker.log({"accuracy": 0.25}, step=5)
        raise KeyError
    with open_tracker(tmp_path, IDENTITY, Wandb(), resume_after=4) as tracker:
        tracker.log({"loss": 0.25}, step=5)
        tracker.table("layers", [{"layer": "c1", "cycles": 3}, {"layer": None, "cycles": "many"}])
        (tmp_path / "masks.npz").write_bytes(b"masks")
        tracker.artifact("trained", tmp_path / "masks.npz", "masks")
        tracker.summarize({"cycles": 7, "speedup/scnn": 1.5})
    wandb.teardown()  # as at the end of a process: waits until all is written
    first, second = read_wandb(tmp_path)
    assert first["run"].run_id == second["run"].run_id == (tmp_path / "wandb/run_id").read_text()
    assert (first["run"].job_type, first["run"].run_group, first["run"].project) == ("train", "sweep", "phantom_jax")
    assert (first["run"].display_name, list(first["run"].tags)) == ("b", ["a"])
    assert first["config"]["seed"] == 0
    assert (first["exit_code"], second["exit_code"]) == (1, 0)
    assert [point["_step"] for point in first["points"]] == [3, 5]
    assert first["points"][0]["kind"] == "iid"
    assert math.isnan(float(first["points"][1]["loss"]))
    assert first["points"][1]["accuracy"] == 0.25
    (point,) = second["points"]
    assert (point["_step"], point["loss"]) == (5, 0.25)
    (path,) = tmp_path.glob(f"wandb/offline-run-*/files/{point['tables/layers/path']}")
    table = json.loads(path.read_text())
    assert table["columns"] == ["layer", "cycles"]
    assert table["data"] == [["c1", 3], [None, "many"]]
    assert second["artifacts"]["trained"].type == "masks"
    assert second["summary"]["cycles"] == 7
    assert second["summary"]["speedup/scnn"] == 1.5
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert "WANDB_DATA_DIR" not in os.environ


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets the address of wandb's server, and the key if there is one, where there is no login."""
    import wandb

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")  # so that it is put back
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NETRC", os.devnull)

    def set_server(url: str, key: str | None = None) -> None:
        wandb.teardown()  # what it has read of the environment
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)

    yield set_server
    wandb.teardown()


def check_offline_copy(directory: pathlib.Path, err: str, reason: str) -> None:
    """There is one, and a note says how to upload it."""
    (run,) = read_wandb(directory)
    assert run["points"][0]["loss"] == 0.5
    (copy,) = directory.glob("wandb/offline-run-*")
    assert re.fullmatch(rf"Note: wandb keeps this run offline: {reason}\. `wandb sync {copy}` uploads it\.\n", err)


def test_without_a_network_an_offline_copy_is_kept_at_once(
    tmp_path: pathlib.Path, online: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    online(url, "0" * 40)  # where nothing listens any more
    begin = time.monotonic()
    with open_tracker(tmp_path, IDENTITY, Wandb(mode="online")) as tracker:
        opened = time.monotonic() - begin
        tracker.log({"loss": 0.5}, step=3)
    wandb.teardown()
    assert opened < 10
    check_offline_copy(tmp_path, capsys.readouterr().err, rf"{url} cannot be reached \(.*Connection refused\)")


def test_without_a_login_an_offline_copy_is_kept(
    tmp_path: pathlib.Path,
    online: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import wandb

    monkeypatch.setattr("experiments.harness.tracking.wandb_run.unreachable", lambda url: None)
    online("http://127.0.0.1:9")
    with open_tracker(tmp_path, IDENTITY, Wandb(mode="online")) as tracker:
        tracker.log({"loss": 0.5}, step=3)
    wandb.teardown()
    check_offline_copy(tmp_path, capsys.readouterr().err, "No API key configured.*")


def test_a_server_is_reachable_if_it_answers_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert unreachable(f"http://127.0.0.1:{server.server_port}") is None
        thread.join()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert unreachable(url, seconds=0.2) in ("timed out", "no answer within 0.2 s")
    assert unreachable("nonsense") is None  # wandb says what is wrong with it


def test_disabled_wandb_is_not_imported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with open_tracker(tmp_path, IDENTITY, Wandb(mode="disabled")):
        pass
    assert capsys.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.fixture
def masks(tmp_path: pathlib.Path) -> list[str]:
    """Overrides for a workload of one small layer."""
    np.savez(tmp_path / "masks.npz", fc_weights=np.ones((9, 4)), fc_activations=np.arange(9) % 2)
    return ["workload=npz", "workload.path=masks.npz"]


@pytest.mark.slow
def test_a_sweep_is_a_group_of_its_runs(
    tmp_path: pathlib.Path, masks: list[str], quiet_network: Mapping[str, str]
) -> None:
    sweep = ["--multirun", "seed=3,4", "hydra.sweep.dir=sweeps/seeds", "tracking.tags=[a,b]"]
    done = commands.run("simulate", tmp_path, *sweep, *masks, environment=quiet_network)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    assert done.stdout.splitlines()[-1] == str(tmp_path / "sweeps/seeds/1")
    assert "wandb:" not in done.stdout
    directories = [tmp_path / "sweeps/seeds" / name for name in ("0", "1")]
    runs = [run for directory in directories for run in read_wandb(directory)]
    assert len(runs) == 2
    assert runs[0]["run"].run_id != runs[1]["run"].run_id
    for run, directory, seed in zip(runs, directories, (3, 4), strict=True):
        assert (run["run"].job_type, run["run"].run_group) == ("simulate", "seeds")
        assert (run["config"]["seed"], run["config"]["arch"]["lookahead"]) == (seed, 27)
        assert (list(run["run"].tags), run["exit_code"]) == (["a", "b"], 0)
        results = json.loads((directory / "results.json").read_text())
        assert run["summary"]["cycles"] == results["totals"]["cycles"][0]
        assert run["summary"]["weight_density"] == 1
        assert run["summary"]["activation_density"] == pytest.approx(4 / 9)
        (point,) = run["points"]
        assert point["tables/layers/nrows"] == 1
        assert all((directory / f"{name}.png").stat().st_size == point[f"figures/{name}/size"] for name in FIGURES)
        head, *logged = lines(directory)
        assert (head["command"], head["group"], head["config"]["seed"]) == ("simulate", "seeds", seed)
        names = collections.Counter(next(iter(record)) for record in logged)
        assert names == {"table": 1, "summary": 1, "artifact": 1, "figure": 3, "failed": 1}


def test_a_command_that_fails_says_so(
    tmp_path: pathlib.Path, masks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the group that is asked for, and without wandb where the environment disables it."""
    (tmp_path / "out/results.csv").mkdir(parents=True)
    overrides = ["tracking.group=mine", "hydra.run.dir=out", *masks]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    done = commands.run_here("simulate", *overrides, "tracking=wandb")
    assert done.returncode == 1
    assert "Is a directory" in done.stderr
    head, *logged = lines(tmp_path / "out")
    assert (head["group"], head["config"]["tracking"]["mode"]) == ("mine", "disabled")
    assert logged == [{"failed": True}]
    assert not (tmp_path / "out/wandb").exists()


def test_a_mode_that_wandb_lacks_is_refused_by_name(
    tmp_path: pathlib.Path, masks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "bogus")
    done = commands.run_here("simulate", "tracking=wandb", *masks)
    assert done.returncode == 1
    assert "tracking.mode (WANDB_MODE) must be one of online, offline, disabled, got 'bogus'" in done.stderr


def test_a_resumed_run_finds_its_group(tmp_path: pathlib.Path) -> None:
    assert logged_group(tmp_path) is None
    with open_tracker(tmp_path, Identity("train", {}, "sweep")):
        pass
    assert logged_group(tmp_path) == "sweep"
    (tmp_path / "log.jsonl").write_text("no JSON\n")
    assert logged_group(tmp_path) is None


@pytest.mark.slow
def test_without_wandb_runs_go_on(tmp_path: pathlib.Path, masks: list[str]) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow/wandb.py").write_text("raise ImportError('no wandb here')")
    environment = {"PYTHONPATH": f"{tmp_path / 'shadow'}{os.pathsep}{commands.ROOT}"}
    sweep = ["--multirun", "tracking=none,wandb", "hydra.sweep.dir=out", "figures.write=false"]
    done = commands.run("simulate", tmp_path, *sweep, *masks, environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == (
        "Note: tracking with wandb stopped: it cannot be imported (no wandb here): pip install wandb, or set "
        "tracking=none."
    )
    for number in ("0", "1"):
        assert lines(tmp_path / "out" / number)[-1] == {"failed": False}
        assert not (tmp_path / "out" / number / "wandb").exists()
