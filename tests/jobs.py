"""Runs the jobs as their users do: from the command line."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parent.parent


def job_of(preset: str) -> str:
    """Returns the job that a preset of `conf/experiment` is for: that of the command in its first lines."""
    lines = (ROOT / "conf" / "experiment" / f"{preset}.yaml").read_text().splitlines()
    command = next(line for line in lines if "python -m experiments." in line)
    return command.split("python -m experiments.")[1].split()[0]


def run(
    job: str, directory: pathlib.Path, *overrides: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a job of `experiments` in a directory, without wandb unless an override says otherwise.

    Options of wandb that the environment holds do not apply, but `environment` adds to it.
    """
    arguments, variables = _command(job, overrides, environment)
    return subprocess.run(arguments, cwd=directory, env=variables, capture_output=True, text=True, timeout=600)


def start(job: str, directory: pathlib.Path, *overrides: str) -> subprocess.Popen[bytes]:
    """Starts a job likewise, without waiting for its end or its output."""
    arguments, variables = _command(job, overrides, None)
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(arguments, cwd=directory, env=variables, stdout=nowhere, stderr=nowhere)


def _command(
    job: str, overrides: tuple[str, ...], environment: Mapping[str, str] | None
) -> tuple[list[str], dict[str, str]]:
    if not any(override.startswith("tracking") for override in overrides):
        overrides = (*overrides, "tracking=none")
    arguments = [sys.executable, "-P", "-m", f"experiments.{job}", *overrides]
    cache = os.environ["PHANTOM_JAX_TEST_CACHE"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    variables = {**inherited, "PYTHONPATH": str(ROOT), "PHANTOM_JAX_CACHE": cache, **(environment or {})}
    return arguments, variables
