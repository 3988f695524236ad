"""Readers of what a command prints may leave."""

import os
import pathlib
import subprocess
import sys

import pytest

from experiments.harness.pipes import readers_may_leave
from tests.experiments.commands import ROOT


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_nobody_reads_is_dropped(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    read, write = os.pipe()
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, name, stream)
        with readers_may_leave():
            print("read", file=getattr(sys, name), flush=True)
            assert os.read(read, 9) == b"read\n"
            os.close(read)
            for _ in range(2):
                print("dropped", file=getattr(sys, name), flush=True)
            print("buffered", file=getattr(sys, name))
        assert getattr(sys, name) is stream


def test_streams_that_are_closed_take_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with readers_may_leave():
        print("dropped", flush=True)


def test_a_reader_that_leaves_is_no_error(tmp_path: pathlib.Path) -> None:
    program = """
import sys
from experiments.harness import command
def main():
    print("first", flush=True)
    sys.stdin.read()
    print("second", flush=True)
    print("third")
    open("written", "w").close()
command.run(main)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        process.stdin.close()
        process.stdin = None
        assert process.stderr.read() == b""
        assert process.wait() == 0
    assert (tmp_path / "written").exists()
