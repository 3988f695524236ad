"""Functions whose gradients stay finite."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phantom_jax.proxy.numerics import largest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import jax
import numpy as np
from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles_from
rng = np.random.default_rng(0)
layer = Layer.conv(rng.random((3, 3, 10, 9)).astype(np.float32), rng.random((1, 12, 12, 10)) < 0.5)
calibration = calibrate(layer, Phantom2D())
print(np.isfinite(jax.grad(lambda weights: expected_cycles_from(calibration, [weights])[0])(layer.weights)).all())
"""


@pytest.mark.parametrize("axis", [0, 1])
def test_the_largest_and_its_gradient_are_those_of_jax_where_none_is_rounded_otherwise(axis: int) -> None:
    values = jnp.asarray([[1.0, 3.0, 3.0], [5.0, 3.0, -1.0], [5.0, 2.0, 0.0]])
    np.testing.assert_array_equal(largest(values, axis), values.max(axis))
    weigh = jnp.arange(1.0, 4.0)
    got = jax.grad(lambda values: (largest(values, axis) * weigh).sum())(values)
    np.testing.assert_allclose(got, jax.grad(lambda values: (values.max(axis) * weigh).sum())(values))


@pytest.mark.slow
def test_gradients_are_finite_however_xla_rounds() -> None:
    """Without optimization, XLA computes what maxima compare once more, and rounds it otherwise."""
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "PHANTOM_JAX_CACHE": "off"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "True", done.stderr
