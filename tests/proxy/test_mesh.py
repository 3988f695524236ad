"""Expected cycles of a mesh are close to the mean of exact cycles; gradients are finite (SPEC 8, points 3 and 5)."""

import dataclasses

import jax
import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles_from
from tests.proxy.layers import KINDS, MESH, mesh_layer, monte_carlo, quick_arch, value_and_gradient, varied


@pytest.mark.parametrize("density", [pytest.param(0.25, marks=pytest.mark.slow), 0.5])
@pytest.mark.parametrize(("name", "inter_balance"), KINDS)
def test_the_mesh_is_close_to_the_mean_of_exact_cycles(name: str, density: float, inter_balance: bool) -> None:
    is_close_to_the_mean_of_exact_cycles(mesh_layer(name, density), quick_arch(name, inter_balance))


@pytest.mark.parametrize(("name", "inter_balance"), KINDS)
def test_gradients_are_finite_at_0_and_1(name: str, inter_balance: bool) -> None:
    layer, arch = mesh_layer(name, 0.4), quick_arch(name, inter_balance)
    weights, rng = np.array(layer.weights), np.random.default_rng(3)
    weights[rng.random(weights.shape) < 0.3] = 0
    weights[rng.random(weights.shape) < 0.2] = 1
    weights[..., 0], weights[..., 1] = 0, 1
    calibration = calibrate(layer, arch)
    masks = (weights > 0.5).astype(np.float32)
    tiny = [np.where(masks, 1, np.float32(chance)) for chance in (1e-8, 1e-16, 1e-30)]
    tiny += [np.full_like(weights, chance) for chance in (1e-12, 1e-25, 1e-36)]
    for values in (weights, masks, np.zeros_like(weights), np.ones_like(weights), *tiny):
        assert np.isfinite(value_and_gradient(values, calibration)[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("inter_balance", [False, True])
@pytest.mark.parametrize("name", [name for name in MESH if name.startswith("along chunks")])
def test_long_chains_are_close_to_the_mean_of_exact_cycles(name: str, inter_balance: bool) -> None:
    is_close_to_the_mean_of_exact_cycles(mesh_layer(name, 0.5), Phantom2D(inter_balance=inter_balance))


def is_close_to_the_mean_of_exact_cycles(layer: Layer, arch: Phantom2D) -> None:
    mean, error = monte_carlo(layer, arch, 100)
    assert error / mean < 0.02
    tolerance = (0.04 if arch.inter_balance else 0.02) * mean
    value, _ = value_and_gradient(layer.weights, calibrate(layer, arch))
    assert abs(float(value) - mean) < tolerance + 3 * error


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (80, 6)], ids=["along positions", "along chunks"])
def test_kernels_are_sampled_where_tables_would_be_too_large(shape: tuple[int, ...]) -> None:
    arch = Phantom2D(rows=1, cols=1, pes=2, threads=9, lookahead=8)
    rng = np.random.default_rng(6)
    activations = rng.random((1, 80) if len(shape) == 2 else (1, 8, 8, 4)) < 0.6
    layer = (Layer.dense if len(shape) == 2 else Layer.conv)(varied(rng, shape, 0.4), activations)
    calibration = calibrate(layer, arch)
    assert calibration.layers[0].plan.way == "samples"
    mean, error = monte_carlo(layer, arch, 200)
    value, gradient = jax.value_and_grad(lambda w: expected_cycles_from(calibration, [w])[0])(layer.weights)
    assert abs(value - mean) < 0.03 * mean + 3 * error
    assert np.isfinite(gradient).all()
    step = 0.05  # along all weights at once, where the noise of the score function averages out
    ahead, _ = monte_carlo(dataclasses.replace(layer, weights=np.clip(layer.weights + step, 0, 1)), arch, 300, 1)
    behind, _ = monte_carlo(dataclasses.replace(layer, weights=np.clip(layer.weights - step, 0, 1)), arch, 300, 1)
    assert abs(gradient.sum() / ((ahead - behind) / (2 * step)) - 1) < 0.4
