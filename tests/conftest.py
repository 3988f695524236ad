"""Test set-up: checks the shapes and types that internal functions are annotated with, and steadies hypothesis."""

import os
import shutil
import tempfile

import hypothesis
import pytest
from jaxtyping import install_import_hook

# All processes of the tests share a compilation cache, made by the one that starts their workers.
if "PHANTOM_JAX_TEST_CACHE" not in os.environ:
    os.environ["PHANTOM_JAX_TEST_CACHE"] = tempfile.mkdtemp()
os.environ["PHANTOM_JAX_CACHE"] = os.environ["PHANTOM_JAX_TEST_CACHE"]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the compilation cache once all workers are done."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["PHANTOM_JAX_TEST_CACHE"], ignore_errors=True)


# Boundary modules are left out: there, bad input must end in their own ValueError and not in beartype's.
_INNER = ("lowering", "selector", "core", "lanes", "lane_core", "mesh")
_RELAXED = (
    "chain",
    "rounds",
    "loads",
    "moments",
    "patterns",
    "chunks",
    "engine",
    "samples",
    "tables",
    "balance",
    "single",
)
install_import_hook(
    [f"phantom_jax.{name}" for name in _INNER] + [f"phantom_jax.relaxed.{name}" for name in _RELAXED],
    "beartype.beartype",
)

hypothesis.settings.register_profile(
    "default", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("explore", parent=hypothesis.settings.get_profile("default"), derandomize=False)
hypothesis.settings.load_profile("default")
