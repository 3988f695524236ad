"""Masks of zeros and ones have their exact cycles (SPEC 8, point 1)."""

import dataclasses
import functools

import hypothesis
import jax
import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles, expected_cycles_from, simulate
from tests import cases
from tests.proxy.layers import masks


@pytest.mark.parametrize("arch", cases.ARCHS, ids=range(len(cases.ARCHS)))
@hypothesis.settings(max_examples=1)
@hypothesis.given(drawn=cases.layers())
def test_masks_have_their_exact_cycles(arch: Phantom2D, drawn: tuple[Layer, object]) -> None:
    are_exact(arch, drawn)


@pytest.mark.slow
@pytest.mark.parametrize("arch", cases.ARCHS, ids=range(len(cases.ARCHS)))
@hypothesis.settings(max_examples=10)
@hypothesis.given(drawn=cases.layers())
def test_masks_have_their_exact_cycles_at_length(arch: Phantom2D, drawn: tuple[Layer, object]) -> None:
    are_exact(arch, drawn)


def are_exact(arch: Phantom2D, drawn: tuple[Layer, object]) -> None:
    layer = masks(drawn[0], np.float32)
    exact = simulate(layer, arch).cycles
    np.testing.assert_allclose(expected_cycles(layer, arch)[0], exact, rtol=1e-5)
    calibration = calibrate(dataclasses.replace(layer, weights=np.zeros(layer.weights.shape)), arch)
    np.testing.assert_allclose(expected_cycles_from(calibration, [layer.weights])[0], exact.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "arch",
    [pytest.param(arch, marks=pytest.mark.slow if i % 3 else [], id=str(i)) for i, arch in enumerate(cases.ARCHS[:9])],
)
@hypothesis.settings(max_examples=1)
@hypothesis.given(drawn=cases.layers(batch=1))
def test_probable_activations_of_0_and_1_and_traced_masks_are_exact(arch: Phantom2D, drawn: tuple) -> None:
    layer = masks(drawn[0])
    hypothesis.assume(layer.positions * layer.reduction < 2000)
    exact = simulate(layer, arch).cycles
    traced = jax.jit(functools.partial(expected_cycles, arch=arch))
    np.testing.assert_allclose(traced(layer)[0], exact, rtol=1e-5)
    probable = dataclasses.replace(layer, activations=layer.activations.astype(np.float32))
    np.testing.assert_allclose(traced(probable)[0], exact, rtol=1e-5)


def test_kernels_that_are_sampled_are_exact_on_masks() -> None:
    rng = np.random.default_rng(3)
    arch = Phantom2D(rows=1, cols=1, pes=2, threads=9, lookahead=8)
    layer = Layer.conv((rng.random((3, 3, 4, 6)) < 0.4).astype(np.float32), rng.random((1, 8, 8, 4)) < 0.6)
    calibration = calibrate(layer, arch)
    assert calibration.layers[0].plan.way == "samples"
    value, gradient = jax.value_and_grad(lambda weights: expected_cycles_from(calibration, [weights])[0])(layer.weights)
    np.testing.assert_allclose(value, simulate(layer, arch).cycles[0], rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_integers_are_masks_whatever_their_values() -> None:
    rng = np.random.default_rng(0)
    layer = Layer.conv(rng.integers(-1, 2, (3, 3, 4, 8)), rng.integers(0, 3, (2, 6, 6, 4)))
    np.testing.assert_allclose(expected_cycles(layer, Phantom2D())[0], simulate(layer, Phantom2D()).cycles, rtol=1e-5)
