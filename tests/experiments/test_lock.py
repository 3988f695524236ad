"""Locks of output directories: one process at a time, whatever ended the one before."""

import contextlib
import errno
import fcntl
import os
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from experiments.harness.lock import Lock
from experiments.harness.sweeps import Sweep
from tests.experiments import commands

ARCH = ("arch.pes=1", "arch.threads=1", "arch.lookahead=3")  # compiles in a second
OPTIONS = ("workload=npz", "workload.path=masks.npz", "figures.write=false", *ARCH)


@contextlib.contextmanager
def held_elsewhere(path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock."""
    program = f"""
import pathlib
from experiments.harness.lock import Lock
lock = Lock(pathlib.Path({str(path)!r}))
print("held", flush=True)
input()
"""
    arguments = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=commands.ROOT, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A directory with a small file of masks, where the test runs."""
    np.savez(tmp_path / "masks.npz", fc_weights=np.ones((9, 4)), fc_activations=np.arange(9) % 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_lock_of_a_killed_process_is_taken_over_and_one_of_a_living_process_names_it(there: pathlib.Path) -> None:
    (there / "out").mkdir()
    run = ("simulate", *OPTIONS, "hydra.run.dir=out")
    with held_elsewhere(there / "out/.lock") as process:
        refused = commands.run_here(*run)
        process.kill()
        process.wait()
        done = commands.run_here(*run)
    assert refused.returncode == 1
    assert f"process {process.pid} of {os.uname().nodename} works in {there / 'out'} since " in refused.stderr
    assert "hydra.run.dir" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert done.returncode == 0, done.stderr
    assert (there / "out/results.json").exists()
    assert commands.run_here(*run).returncode == 0  # which does not keep the lock either


def test_a_sweep_waits_for_no_other_sweep_in_its_directory(there: pathlib.Path) -> None:
    (there / "sweep").mkdir()
    run = ("simulate", "--multirun", *OPTIONS, "hydra.sweep.dir=sweep")
    with held_elsewhere(there / "sweep/.sweep.lock") as process:
        refused = commands.run_here(*run)
    assert refused.returncode == 1
    assert f"process {process.pid} of " in refused.stderr
    assert [path.name for path in (there / "sweep").iterdir()] == [".sweep.lock"]
    assert commands.run_here(*run).returncode == 0


def test_a_run_of_a_sweep_that_a_worker_of_a_killed_sweep_is_at_is_left_to_it(there: pathlib.Path) -> None:
    (there / "sweep/1").mkdir(parents=True)
    run = ("simulate", "--multirun", *OPTIONS, "hydra.sweep.dir=sweep", "arch.rows=1,2,3")
    with held_elsewhere(there / "sweep/1/.lock") as process:
        partly = commands.run_here(*run)
    assert partly.returncode == 1
    assert f"process {process.pid} of " in partly.stderr.partition("1 run failed:")[2]
    assert commands.results(there / "sweep").keys() == {"0", "2"}
    done = commands.run_here(*run)
    assert done.returncode == 0, done.stderr
    assert commands.results(there / "sweep").keys() == {"0", "1", "2"}


def test_a_run_that_resumes_elsewhere_locks_that_directory(there: pathlib.Path) -> None:
    (there / "old/checkpoints").mkdir(parents=True)
    options = ("fast=true", "data=digits", "resume=old", "hydra.run.dir=new")
    with held_elsewhere(there / "old/.lock") as process:
        refused = commands.run_here("train", *options)
    assert refused.returncode == 1
    assert f"process {process.pid} of {os.uname().nodename} works in {there / 'old'} since " in refused.stderr
    assert list((there / "old/checkpoints").iterdir()) == []


def test_a_sweep_may_be_its_only_run(there: pathlib.Path) -> None:
    done = commands.run_here("simulate", "--multirun", *OPTIONS, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=.")
    assert done.returncode == 0, done.stderr


def test_threads_of_a_process_keep_each_other_out(tmp_path: pathlib.Path) -> None:
    first = Lock(tmp_path / ".lock")
    with pytest.raises(ValueError, match=f"process {os.getpid()} of "):
        Lock(tmp_path / ".lock")
    first.release()
    assert (tmp_path / ".lock").read_text() == ""
    with Lock(tmp_path / ".lock"), pytest.raises(ValueError, match="a directory takes one process at a time"):
        Lock(tmp_path / ".lock")
    Lock(tmp_path / ".lock").release()


def test_a_lock_ends_with_its_last_reference(tmp_path: pathlib.Path) -> None:
    lock = Lock(tmp_path / ".lock")
    del lock
    Lock(tmp_path / ".lock").release()


def test_a_program_that_a_process_started_does_not_keep_its_lock(tmp_path: pathlib.Path) -> None:
    program = f"""
import os, pathlib, subprocess, sys
from experiments.harness.lock import Lock
lock = Lock(pathlib.Path({str(tmp_path / ".lock")!r}))
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], cwd=commands.ROOT, **pipes) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait()
        os.kill(child, 0)  # it lives
        Lock(tmp_path / ".lock").release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_noted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def has_none(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", has_none)
    with Lock(tmp_path / ".lock"):
        pass
    noted = " ".join(capsys.readouterr().out.split())
    assert noted.startswith(f"Note: the file system of {tmp_path} has no locks (")
    assert noted.endswith("so nothing keeps a second process out of it.")


def test_other_errors_of_a_lock_are_raised(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path / "none/.lock")


def test_workers_of_launchers_are_sent_no_lock(tmp_path: pathlib.Path) -> None:
    """They are sent the callback of the sweep, whose lock is the command's own."""
    sweep: Any = Sweep()
    sweep._lock = Lock(tmp_path / ".sweep.lock")
    sent = pickle.loads(pickle.dumps(sweep))
    assert sent._lock is None
    sweep._lock.release()
