"""The set-up installs what the locks say, once, and starts anew after an interruption. No package is installed here."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Stands for every Python: makes environments that hold itself, logs what is installed, fails where that matches FAIL.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  --version) echo "Python 3.11.0" ;;
  "-m venv "*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  "-c import sys;"*) ;;
  "-c "*) exec python3 "$@" ;;
  *install*) sleep "${SLEEP:-0}"; words=$*; echo "${words##*/}" >>"$LOG"; [[ ! "$words" =~ $FAIL ]] ;;
esac
"""


@pytest.fixture
def clone(tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def setup(
    clone: pathlib.Path, *arguments: str, python: str = "python", fail: str = "uv.lock"
) -> subprocess.CompletedProcess:
    """Sets up with the Python above and without uv, which cannot be installed."""
    environment = {"PYTHON": str(clone / python), "LOG": str(clone / "log"), "FAIL": fail}
    command = [clone / "scripts/setup", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def installed(clone: pathlib.Path) -> list[str]:
    """Returns what was asked for since the last call: names of files, and the folder of the clone."""
    lines = (clone / "log").read_text().splitlines()
    (clone / "log").unlink()
    return lines


def test_each_set_up_is_done_once_and_all_adds_to_run(clone: pathlib.Path) -> None:
    assert setup(clone).returncode == 0
    assert installed(clone) == ["uv.lock", "run.lock", clone.name]
    (clone / ".venv/kept").touch()
    assert setup(clone, "all").returncode == 0
    assert installed(clone) == ["uv.lock", "all.lock", clone.name]
    for arguments in ((), ("run",), ("all",)):
        done = setup(clone, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (clone / "log").exists()
    assert sorted(path.name for path in (clone / ".venv").iterdir()) == ["all.lock", "bin", "kept", "run.lock"]


def test_two_set_ups_at_once_are_one(clone: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEP", "0.2")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = list(pool.map(setup, [clone, clone]))
    assert [one.returncode for one in done] == [0, 0], done
    assert installed(clone) == ["uv.lock", "run.lock", clone.name]
    assert sorted("Waiting for another set-up of .venv ..." in one.stderr for one in done) == [False, True]
    assert sorted("Setting up .venv" in one.stderr for one in done) == [False, True]


def test_a_new_lock_is_installed(clone: pathlib.Path) -> None:
    assert setup(clone, "all").returncode == 0
    installed(clone)
    with (clone / "requirements/run.lock").open("a") as lock:
        lock.write("new==1\n")
    assert setup(clone).returncode == 0
    assert installed(clone) == ["uv.lock", "run.lock", clone.name]
    assert not (clone / ".venv/all.lock").exists()


@pytest.mark.parametrize("fail", ["uv.lock|run.lock", "uv.lock|editable"])
def test_an_interrupted_set_up_starts_anew(clone: pathlib.Path, fail: str) -> None:
    assert setup(clone, fail=fail).returncode != 0
    assert not list((clone / ".venv").glob("*.lock"))
    assert setup(clone).returncode == 0
    assert installed(clone)[-2:] == ["run.lock", clone.name]


def test_an_old_python_is_refused(clone: pathlib.Path) -> None:
    (clone / "old").write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.1"\n')
    (clone / "old").chmod(0o755)
    done = setup(clone, python="old")
    assert done.returncode == 1
    assert "phantom_jax needs Python 3.11 or newer; found: Python 3.10.1." in done.stderr
    assert not (clone / ".venv").exists()


def test_what_is_unknown_is_refused(clone: pathlib.Path) -> None:
    done = setup(clone, "some")
    assert done.returncode == 2
    assert "Expected scripts/setup run or scripts/setup all, got scripts/setup some." in done.stderr


def test_a_linked_environment_is_left_alone(clone: pathlib.Path) -> None:
    (clone / "elsewhere").mkdir()
    (clone / ".venv").symlink_to("elsewhere")
    assert setup(clone).returncode == 0
    assert not list((clone / "elsewhere").iterdir())


def test_locks_agree_and_name_no_address() -> None:
    run, everything = ((ROOT / f"requirements/{name}.lock").read_text() for name in ("run", "all"))
    pins = re.compile(r"^[a-z].*?==.*(?:\n    --hash.*)+", re.MULTILINE)
    assert set(pins.findall(run)) < set(pins.findall(everything))
    assert "://" not in run + everything
