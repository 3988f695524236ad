"""Runs the jobs as their users do: from the command line."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def run(job: str, directory: pathlib.Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs a job of `experiments` in a directory."""
    arguments = [sys.executable, "-P", "-m", f"experiments.{job}", *overrides]
    cache = os.environ["PHANTOM_JAX_TEST_CACHE"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PHANTOM_JAX_CACHE": cache}
    return subprocess.run(arguments, cwd=directory, env=environment, capture_output=True, text=True, timeout=600)
