"""The proxy composes with JAX, compiles once, and refuses bad input (SPEC 8, point 6, and SPEC 10)."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles, expected_cycles_from, simulate
from tests.proxy.layers import ONE_CORE, masks, varied


def test_it_composes_with_transformations() -> None:
    rng = np.random.default_rng(8)
    conv = Layer.conv(varied(rng, (2, 2, 3, 4), 0.4), rng.random((1, 7, 7, 3)) < 0.5)
    layers = [conv, Layer.dense(varied(rng, (8, 4), 0.4), rng.random((1, 8)) < 0.5)]
    arch = Phantom2D(rows=3, cols=2, pes=2, threads=2, lookahead=2, inter_balance=False)  # small, so it compiles fast
    calibration = calibrate(layers, arch)
    weights = [layer.weights for layer in layers]
    plain = expected_cycles_from(calibration, weights)
    assert plain.shape == (2,)
    np.testing.assert_allclose(expected_cycles(layers, arch).mean(1), plain, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(expected_cycles_from)(calibration, weights), plain, rtol=1e-5)
    batched = jax.vmap(lambda weights: expected_cycles_from(calibration, weights))([np.stack([w, w]) for w in weights])
    np.testing.assert_allclose(batched, np.stack([plain, plain]), rtol=1e-5)

    def loss(weights: list) -> jax.Array:
        return expected_cycles_from(calibration, weights).sum()

    kept = jax.tree.leaves(jax.jit(jax.grad(loss))(weights))
    again = jax.tree.leaves(jax.jit(jax.grad(jax.checkpoint(loss)))(weights))
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    stacked = jax.tree.map(lambda array: np.stack([array, array]), masks(layers[0], np.float32))
    of_layers = jax.vmap(lambda layer: expected_cycles(layer, arch))(stacked)
    np.testing.assert_allclose(of_layers[:, 0, 0], simulate(masks(layers[0]), arch).cycles[0], rtol=1e-5)


def test_new_values_compile_nothing() -> None:
    layer, arch = GOOD, Phantom2D(rows=2, cols=2, pes=2, threads=2, lookahead=9)
    step = jax.jit(jax.value_and_grad(lambda weights, calibration: expected_cycles_from(calibration, [weights])[0]))
    step(layer.weights, calibrate(layer, arch))
    other = dataclasses.replace(layer, activations=np.eye(5, dtype=bool)[None, :, :, None] & layer.activations)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        step(layer.weights / 2, calibrate(other, arch))
        expected_cycles_from(calibrate(other, arch), [layer.weights])
        warm = len(compiled)
        expected_cycles_from(calibrate(layer, arch), [layer.weights / 2])
        step(layer.weights / 3, calibrate(layer, arch))
        assert len(compiled) == warm
    finally:
        jax.monitoring.clear_event_listeners()


def test_images_are_averaged_after_the_mesh() -> None:
    rng = np.random.default_rng(7)
    layer = Layer.conv(varied(rng, (3, 3, 4, 8), 0.4), rng.random((3, 9, 9, 4)) < 0.5)
    each = [
        float(expected_cycles(dataclasses.replace(layer, activations=image[None]), Phantom2D())[0, 0])
        for image in layer.activations
    ]
    np.testing.assert_allclose(expected_cycles(layer, Phantom2D())[0], each, rtol=1e-5)
    np.testing.assert_allclose(
        expected_cycles_from(calibrate(layer, Phantom2D()), [layer.weights])[0], np.mean(each), rtol=1e-5
    )


ANYTHING: Any = 3
QUICK_CORE = Phantom2D(rows=1, cols=1, pes=2, threads=2, lookahead=9)  # compiles sooner
GOOD = Layer.conv(np.full((3, 3, 2, 4), 0.5), np.ones((1, 5, 5, 2), bool), name="first")


def replaced(**arrays: np.ndarray) -> Layer:
    return dataclasses.replace(GOOD, **arrays)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: expected_cycles(replaced(weights=np.full((3, 3, 2, 4), 1.5)), ONE_CORE),
            r"weights of layers\[0\] \(first\).*1\.5",
        ),
        (lambda: expected_cycles(replaced(weights=np.full((3, 3, 2, 4), np.nan)), ONE_CORE), r"weights of .*nan"),
        (
            lambda: expected_cycles(replaced(activations=np.full((1, 5, 5, 2), 3.0)), ONE_CORE),
            r"activations of .*3\.0.*!= 0",
        ),
        (lambda: expected_cycles(replaced(weights=np.ones((3, 3, 2, 4), complex)), ONE_CORE), "complex128"),
        (lambda: expected_cycles([], ONE_CORE), "at least one Layer"),
        (lambda: expected_cycles(ANYTHING, ONE_CORE), "layers must be a Layer"),
        (lambda: expected_cycles(GOOD, ANYTHING), "arch must be a Phantom2D"),
        (lambda: calibrate([GOOD, replaced(activations=np.ones((2, 5, 5, 2), bool))], ONE_CORE), "batch of 2 images"),
        (lambda: expected_cycles_from(ANYTHING, [GOOD.weights]), "calibration must be what calibrate returned"),
        (lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), []), "array for each of 1 layers, got 0"),
        (
            lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), [np.ones((3, 3))]),
            r"weights\[0\] \(first\).*\(3, 3\)",
        ),
        (lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), [0.5]), r"weights\[0\] \(first\).*got a float"),
        (lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), [-GOOD.weights]), r"weights\[0\] \(first\).*-0\.5"),
        (lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), GOOD.weights[:2]), r"weights\[0\].*\(2, 3, 2, 4\)"),
        (lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), ANYTHING), "sequence of an array for each.*got int"),
        (lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), {"a": GOOD.weights}), "sequence.*got dict"),  # pyright: ignore
        (lambda: expected_cycles_from(calibrate(GOOD, ONE_CORE), [GOOD.weights.astype(str)]), "dtype <U"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("argument", ["weights", "activations"])
def test_bad_traced_values_end_in_nan(argument: str) -> None:
    layer = replaced(activations=np.full((1, 5, 5, 2), 0.5))

    @jax.jit
    @jax.value_and_grad
    def total(array: jax.Array) -> jax.Array:
        return expected_cycles(dataclasses.replace(layer, **{argument: array}), QUICK_CORE).sum()

    for value in (1.5, -0.1, np.nan):
        bad = np.array(getattr(layer, argument))
        bad.flat[3] = value
        result, gradient = total(bad)
        assert np.isnan(result)
        assert np.isnan(gradient).any()


def test_a_single_array_serves_a_single_layer() -> None:
    calibration = calibrate(GOOD, ONE_CORE)
    assert expected_cycles_from(calibration, GOOD.weights) == expected_cycles_from(calibration, [GOOD.weights])


def test_calibration_takes_any_weights() -> None:
    calibration = calibrate(replaced(weights=np.full((3, 3, 2, 4), -7.0)), ONE_CORE)
    assert expected_cycles_from(calibration, GOOD.weights) == expected_cycles_from(
        calibrate(GOOD, ONE_CORE), GOOD.weights
    )
