"""Gradients are finite, those of the value, and useful (SPEC 8, point 5)."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles, expected_cycles_from, simulate
from tests.proxy.layers import mesh_layer, quick_arch, value_and_gradient, varied

GRADIENTS = (
    "segments",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("jobs", "filters", "depthwise", "along chunks, filters", "along chunks, convolution")
    ),
)
BALANCES = [pytest.param(False, marks=pytest.mark.slow), True]


@pytest.mark.parametrize("inter_balance", BALANCES)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_equal_finite_differences(name: str, inter_balance: bool) -> None:
    layer, arch = mesh_layer(name, 0.4), quick_arch(name, inter_balance)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        calibration = calibrate(layer, arch)
        weights = jnp.asarray(np.clip(np.asarray(layer.weights, np.float64), 0.05, 0.95))
        gradient = np.asarray(value_and_gradient(weights, calibration)[1])
        for _ in range(3):
            along = rng.normal(size=weights.shape)
            step = 1e-8  # so small that hardly ever a schedule changes within it
            ahead, behind = (value_and_gradient(weights + sign * step * along, calibration)[0] for sign in (1, -1))
            difference = (ahead - behind) / (2 * step)
            np.testing.assert_allclose((gradient * along).sum(), difference, rtol=2e-4, atol=1e-3)


def test_gradients_of_activations_are_finite_and_follow_the_model() -> None:
    rng = np.random.default_rng(4)
    layer = Layer.conv(varied(rng, (2, 2, 2, 4), 0.5), rng.random((1, 6, 6, 2)).astype(np.float32))
    arch = Phantom2D(rows=1, cols=1, pes=2, threads=2, lookahead=9)
    gradient = jax.grad(lambda a: expected_cycles(dataclasses.replace(layer, activations=a), arch).sum())
    values = np.array(layer.activations)
    values[0, :2] = 0
    values[0, -2:] = 1
    assert np.isfinite(gradient(values)).all()
    assert np.mean(gradient(np.asarray(layer.activations))) > 0  # more activations, more cycles


@pytest.mark.slow
@pytest.mark.parametrize("inter_balance", [False, True])
def test_gradients_point_where_exact_cycles_fall(inter_balance: bool) -> None:
    """Against finite differences of exact cycles with common random numbers, by blocks of filters and channels."""
    arch = Phantom2D(rows=2, cols=2, inter_balance=inter_balance)
    rng = np.random.default_rng(2)
    layer = Layer.conv(varied(rng, (3, 3, 6, 8), 0.4), rng.random((1, 10, 10, 6)) < np.linspace(0.1, 0.9, 6))
    weights = np.clip(layer.weights, 0.2, 0.8)
    gradient = np.asarray(jax.grad(lambda w: expected_cycles_from(calibrate(layer, arch), [w])[0])(weights))
    halves = []
    for seed in range(2):
        uniform = np.random.default_rng(seed).random((400, *weights.shape))
        differences = np.zeros((3, 4))
        for channels, filters in itertools.product(range(3), range(4)):
            block = (..., slice(2 * channels, 2 * channels + 2), slice(2 * filters, 2 * filters + 2))
            for sign in (1, -1):
                moved = weights.copy()
                moved[block] += sign * 0.15
                layers = (dataclasses.replace(layer, weights=bits < moved) for bits in uniform)
                differences[channels, filters] += sign * simulate(layers, arch).cycles[0]
        halves.append(differences.reshape(-1))
    summed = gradient.sum((0, 1)).reshape(3, 2, 4, 2).sum((1, 3)).reshape(-1)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(*halves) > 0.95
    assert cosine(summed, halves[0] + halves[1]) > 0.9
