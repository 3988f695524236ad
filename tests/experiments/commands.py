"""Runs the commands as their users do: from the command line."""

import contextlib
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
_NO_LOGGING = (
    "hydra/hydra_logging=disabled",
    "hydra/job_logging=disabled",
)  # Hydra would set up that of the tests anew


def command_of(preset: str) -> str:
    """Returns the name of the command that a preset of `conf/experiment` is for, from its first lines."""
    lines = (ROOT / "conf" / "experiment" / f"{preset}.yaml").read_text().splitlines()
    line = next(line for line in lines if "python -m experiments." in line)
    return line.split("python -m experiments.")[1].split()[0]


def run(
    command: str, directory: pathlib.Path, *overrides: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command of `experiments` in a directory, without wandb unless an override says otherwise.

    Options of wandb that the environment holds do not apply, but `environment` adds to it.
    """
    arguments, variables = _command(command, overrides, environment)
    return subprocess.run(arguments, cwd=directory, env=variables, capture_output=True, text=True, timeout=600)


def run_here(command: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs a command likewise, but in this process and its directory, which saves the imports."""
    arguments, _ = _command(command, overrides, None)
    stdout, stderr, code, before = io.StringIO(), io.StringIO(), 0, sys.argv
    sys.argv = arguments[3:]
    try:
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            warnings.catch_warnings(),
            mock.patch("hydra._internal.logging_config.configure_logging"),  # which closes what pytest captures
        ):
            warnings.simplefilter("ignore")  # plugins have some
            runpy.run_module(f"experiments.{command}", run_name="__main__", alter_sys=False)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def kill_when(reached: Callable[[], bool], command: str, directory: pathlib.Path, *overrides: str) -> None:
    """Starts a command likewise, and kills it once it has reached something, which must be before its end."""
    arguments, variables = _command(command, overrides, None)
    nowhere = subprocess.DEVNULL
    started = subprocess.Popen(arguments, cwd=directory, env=variables, stdout=nowhere, stderr=nowhere)
    deadline = time.monotonic() + 300
    while not reached():
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started.kill()
    started.wait()


def save_onnx(directory: pathlib.Path) -> None:
    """Saves `net.onnx`, which multiplies `x` by constants and the product by `k`, and `inputs.npz`, two images."""
    onnx = pytest.importorskip("onnx")
    infos = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "k", "y")}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        onnx.helper.make_node("MatMul", ["h", "k"], ["y"], name="scores"),
    ]
    weights = onnx.numpy_helper.from_array(np.eye(6, 3, dtype=np.float32), "w")
    graph = onnx.helper.make_graph(nodes, "graph", [infos["x"], infos["k"]], [infos["y"]], [weights])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), directory / "net.onnx")
    np.savez(directory / "inputs.npz", x=np.ones((2, 6), np.float32), k=np.ones((3, 4), np.float32))


def results(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the results of each run of a sweep, by the name of its directory."""
    return {path.parent.name: json.loads(path.read_text()) for path in directory.glob("*/results.json")}


def _command(
    command: str, overrides: tuple[str, ...], environment: Mapping[str, str] | None
) -> tuple[list[str], dict[str, str]]:
    if not any(override.startswith("tracking") for override in overrides):
        overrides = (*overrides, "tracking=none")
    arguments = [sys.executable, "-P", "-m", f"experiments.{command}", *overrides]
    cache = os.environ["PHANTOM_JAX_TEST_CACHE"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    variables = {**inherited, "PYTHONPATH": str(ROOT), "PHANTOM_JAX_CACHE": cache, **(environment or {})}
    return arguments, variables
