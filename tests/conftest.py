"""Test set-up: checks the shapes and types that internal functions are annotated with, and steadies hypothesis."""

import os

import hypothesis
from jaxtyping import install_import_hook

os.environ["PHANTOM_JAX_CACHE"] = "off"  # tests compile what they test

# Boundary modules are left out: there, bad input must end in their own ValueError and not in beartype's.
install_import_hook(
    [f"phantom_jax.{name}" for name in ("lowering", "selector", "core", "lanes", "lane_core", "mesh")],
    "beartype.beartype",
)

hypothesis.settings.register_profile(
    "default", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("explore", parent=hypothesis.settings.get_profile("default"), derandomize=False)
hypothesis.settings.load_profile("default")
