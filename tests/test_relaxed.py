"""The proxy against the exact model: SPEC 8, points 1 to 6."""

import dataclasses
import functools
import itertools
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, calibrate, core_cycles, expected_cycles, expected_cycles_from, simulate
from tests import cases

RNG = np.random.default_rng(5)
SMALL = Phantom2D(rows=1, cols=1)


def masks(layer: Layer, dtype: type | None = None) -> Layer:
    """Returns a layer whose arrays hold 0 and 1."""
    weights, activations = np.asarray(layer.weights) != 0, np.asarray(layer.activations) != 0
    return dataclasses.replace(layer, weights=weights.astype(dtype or bool), activations=activations)


def monte_carlo(layer: Layer, arch: Phantom2D, draws: int, seed: int = 0) -> tuple[float, float]:
    """Returns the mean of the exact cycles over drawn bits, and its standard error; floating arrays are drawn."""
    rng = np.random.default_rng(seed)

    def draw(array: np.ndarray) -> np.ndarray:
        return rng.random(array.shape) < array if np.issubdtype(array.dtype, np.floating) else array

    cycles = [
        simulate(
            dataclasses.replace(layer, weights=draw(layer.weights), activations=draw(layer.activations)), arch
        ).cycles[0]
        for _ in range(draws)
    ]
    return float(np.mean(cycles)), float(np.std(cycles) / draws**0.5)


def varied(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> np.ndarray:
    """Returns probabilities that differ by filter, channel and tap."""
    filters = rng.beta(2, 2 / density - 2, shape[-1])
    channels = rng.uniform(0.5, 1.5, (shape[-2], 1))
    taps = rng.uniform(0.7, 1.3, (*shape[:-2], 1, 1))
    return np.clip(filters * channels * taps, 0, 1).astype(np.float32)


# 1. Exact at the corners.


@pytest.mark.parametrize("arch", cases.ARCHS, ids=range(len(cases.ARCHS)))
@hypothesis.settings(max_examples=2)
@hypothesis.given(drawn=cases.layers())
def test_masks_have_their_exact_cycles(arch: Phantom2D, drawn: tuple[Layer, object]) -> None:
    layer = masks(drawn[0], np.float32)
    exact = simulate(layer, arch).cycles
    np.testing.assert_allclose(expected_cycles(layer, arch)[0], exact, rtol=1e-5)
    calibration = calibrate(dataclasses.replace(layer, weights=np.zeros(layer.weights.shape)), arch)
    np.testing.assert_allclose(expected_cycles_from(calibration, [layer.weights])[0], exact.mean(), rtol=1e-5)


@pytest.mark.parametrize("arch", cases.ARCHS[:9], ids=range(9))
@hypothesis.settings(max_examples=2)
@hypothesis.given(drawn=cases.layers(batch=1))
def test_probable_activations_of_0_and_1_and_traced_masks_are_exact(arch: Phantom2D, drawn: tuple) -> None:
    layer = masks(drawn[0])
    hypothesis.assume(layer.positions * layer.reduction < 2000)
    exact = simulate(layer, arch).cycles
    traced = jax.jit(functools.partial(expected_cycles, arch=arch))
    np.testing.assert_allclose(traced(layer)[0], exact, rtol=1e-5)
    probable = dataclasses.replace(layer, activations=layer.activations.astype(np.float32))
    np.testing.assert_allclose(traced(probable)[0], exact, rtol=1e-5)


def test_integers_are_masks_whatever_their_values() -> None:
    layer, _ = Layer.conv(RNG.integers(-1, 2, (3, 3, 4, 8)), RNG.integers(0, 3, (2, 6, 6, 4))), None
    np.testing.assert_allclose(expected_cycles(layer, Phantom2D())[0], simulate(layer, Phantom2D()).cycles, rtol=1e-5)


# 2. Exact jobs: by enumeration of all weights, which takes layers of few.


def enumerated(layer: Layer, arch: Phantom2D) -> float:
    """Returns the expected cycles of a layer of one filter, from every weight mask there is: as many filters."""
    chances = np.asarray(layer.weights, np.float64)
    bits = np.arange(1 << chances.size) >> np.arange(chances.size)[:, None] & 1 == 1
    every = bits.reshape(*chances.shape[:-1], -1)
    cycles = core_cycles(dataclasses.replace(layer, weights=every), dataclasses.replace(arch, inter_balance=False))
    return float(np.where(every, chances, 1 - chances).reshape(chances.size, -1).prod(0) @ cycles[:, 0, 0])


ENUMERATED = {
    "3x3, one channel": (Layer.conv(RNG.random((3, 3, 1, 1)), RNG.random((1, 7, 7, 1)) < 0.5), SMALL),
    "in order": (
        Layer.conv(RNG.random((3, 3, 1, 1)), RNG.random((1, 7, 7, 1)) < 0.7),
        dataclasses.replace(SMALL, selector="in_order", lookahead=5),
    ),
    "two chunks": (
        Layer.conv(RNG.random((1, 1, 10, 1)), RNG.random((1, 4, 4, 10)) < 0.6),
        dataclasses.replace(SMALL, lookahead=4),
    ),
    "no rotation, stride 2": (
        Layer.conv(RNG.random((2, 2, 3, 1)), RNG.random((1, 9, 9, 3)) < 0.6, strides=2),
        dataclasses.replace(SMALL, pes=2, threads=2, intra_balance=False),
    ),
    "S = 16, of which 8 are occupied": (
        Layer.conv(RNG.random((2, 2, 2, 1)), RNG.random((1, 5, 5, 2)) < 0.6),
        dataclasses.replace(SMALL, pes=4, threads=4, lookahead=6),
    ),
    "along chunks": (
        Layer.dense(RNG.random((11, 1)), RNG.random((1, 11)) < 0.8),
        dataclasses.replace(SMALL, pes=1, threads=3),
    ),
    "along chunks, three PEs": (
        Layer.dense(RNG.random((11, 1)), np.ones((1, 11), bool)),
        dataclasses.replace(SMALL, threads=1),
    ),
    "along chunks, T = 4": (
        Layer.dense(RNG.random((12, 1)), np.ones((1, 12), bool)),
        dataclasses.replace(SMALL, pes=1, threads=4),
    ),
    "along chunks, in order, several blocks": (
        Layer.dense(RNG.random((12, 1)), RNG.random((1, 12)) < 0.9),
        dataclasses.replace(SMALL, pes=1, threads=2, lookahead=2, selector="in_order"),
    ),
    "along chunks, two positions": (
        Layer.dense(RNG.random((9, 1)), RNG.random((1, 2, 9)) < 0.8),
        dataclasses.replace(SMALL, pes=1, threads=2),
    ),
}


@pytest.mark.parametrize("name", ENUMERATED)
def test_one_core_has_the_true_expectation(name: str) -> None:
    layer, arch = ENUMERATED[name]
    np.testing.assert_allclose(expected_cycles(layer, arch)[0, 0], enumerated(layer, arch), rtol=1e-4)


@pytest.mark.parametrize("inter_balance", [False, True])
@pytest.mark.parametrize("shape", [(3, 3, 8, 12), (1, 1, 40, 10), (5, 5, 3, 6)], ids=["3x3", "pointwise", "5x5"])
def test_one_core_sums_jobs_exactly(shape: tuple[int, ...], inter_balance: bool) -> None:
    layer = Layer.conv(varied(RNG, shape, 0.4), RNG.random((1, 12, 12, shape[-2])) < 0.5)
    arch = dataclasses.replace(SMALL, inter_balance=inter_balance)
    mean, error = monte_carlo(layer, arch, 200)
    # On one core, cycles are a sum over jobs, whose exactness is enumerated above.
    assert abs(float(expected_cycles(layer, arch)[0, 0]) - mean) < 4 * error


# 3. Calibrated mesh: 2% with level-2 balance off, 4% with it on, beyond the error of the means.

MESH = {
    "jobs": ((3, 3, 32, 32), (1, 8, 8, 32), 1),
    "jobs, two per row": ((3, 3, 16, 32), (1, 14, 14, 16), 1),
    "segments": ((3, 3, 10, 9), (1, 12, 12, 10), 1),
    "segments, one job": ((3, 3, 1, 32), (1, 28, 28, 1), 1),
    "filters": ((1, 1, 64, 128), (1, 8, 8, 64), 1),
    "depthwise": ((3, 3, 1, 64), (1, 14, 14, 64), 64),
    "grouped": ((5, 5, 4, 6), (1, 9, 9, 8), 2),
    "along chunks, filters": ((500, 40), (1, 500), 1),
    "along chunks, one round": ((128, 10), (1, 128), 1),
    "along chunks, segments": ((1568, 64), (1, 1568), 1),
    "along chunks, positions share rows": ((300, 60), (1, 10, 300), 1),
    "along chunks, convolution": ((3, 3, 24, 48), (1, 4, 4, 24), 1),
}


def mesh_layer(name: str, density: float) -> Layer:
    weights, activations, groups = MESH[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    mask = rng.random(activations) < np.clip(rng.beta(2, 2, activations[-1]), 0.1, 1)
    if len(weights) == 2:
        return Layer.dense(varied(rng, weights, density), mask)
    return Layer.conv(varied(rng, weights, density), mask, feature_group_count=groups, strides=2 if groups > 2 else 1)


@pytest.mark.parametrize("inter_balance", [False, True])
@pytest.mark.parametrize("density", [pytest.param(0.25, marks=pytest.mark.slow), 0.5])
@pytest.mark.parametrize("name", MESH)
def test_the_mesh_is_close_to_the_mean_of_exact_cycles(name: str, density: float, inter_balance: bool) -> None:
    layer, arch = mesh_layer(name, density), Phantom2D(inter_balance=inter_balance)
    mean, error = monte_carlo(layer, arch, 100)
    assert error / mean < 0.02
    tolerance = (0.04 if inter_balance else 0.02) * mean
    assert abs(float(expected_cycles(layer, arch)[0, 0]) - mean) < tolerance + 3 * error


# 4. Probable activations: 5% on one core.

PROBABLE = {
    "3x3": ((3, 3, 4, 6), (1, 8, 8, 4)),
    "pointwise": ((1, 1, 18, 6), (1, 6, 6, 18)),
    "dense": ((60, 8), (1, 60)),
    "dense of positions": ((60, 8), (1, 3, 60)),
}


@pytest.mark.parametrize("name", PROBABLE)
def test_probable_activations_on_one_core(name: str) -> None:
    weights, activations = PROBABLE[name]
    make = Layer.dense if len(weights) == 2 else Layer.conv
    layer = make(varied(RNG, weights, 0.5), np.clip(RNG.beta(2, 2, activations), 0, 1).astype(np.float32))
    mean, error = monte_carlo(layer, SMALL, 200)
    assert abs(float(expected_cycles(layer, SMALL)[0, 0]) - mean) < 0.05 * mean + 3 * error


# 5. Useful gradients.

GRADIENTS = ("jobs", "segments", "filters", "depthwise", "along chunks, filters", "along chunks, convolution")


@pytest.mark.parametrize("inter_balance", [False, True])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_equal_finite_differences(name: str, inter_balance: bool) -> None:
    layer, arch = mesh_layer(name, 0.4), Phantom2D(inter_balance=inter_balance)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        calibration = calibrate(layer, arch)
        weights = jnp.asarray(np.clip(np.asarray(layer.weights, np.float64), 0.05, 0.95))
        value = jax.jit(lambda weights: expected_cycles_from(calibration, [weights])[0])
        gradient = np.asarray(jax.jit(jax.grad(value))(weights))
        for _ in range(3):
            along = rng.normal(size=weights.shape)
            step = 1e-6
            difference = (value(weights + step * along) - value(weights - step * along)) / (2 * step)
            np.testing.assert_allclose((gradient * along).sum(), difference, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("inter_balance", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("name", MESH)
def test_gradients_are_finite_at_0_and_1(name: str, inter_balance: bool) -> None:
    layer, arch = mesh_layer(name, 0.4), Phantom2D(inter_balance=inter_balance)
    weights = np.array(layer.weights)
    weights[RNG.random(weights.shape) < 0.3] = 0
    weights[RNG.random(weights.shape) < 0.2] = 1
    weights[..., 0], weights[..., 1] = 0, 1
    calibration = calibrate(layer, arch)
    gradient = jax.jit(jax.grad(lambda weights: expected_cycles_from(calibration, [weights])[0]))
    for values in (weights, (weights > 0.5).astype(np.float32), np.zeros_like(weights), np.ones_like(weights)):
        assert np.isfinite(gradient(values)).all()


def test_gradients_of_activations_are_finite_and_follow_the_model() -> None:
    layer = Layer.conv(varied(RNG, (3, 3, 2, 4), 0.5), RNG.random((1, 6, 6, 2)).astype(np.float32))
    gradient = jax.grad(lambda a: expected_cycles(dataclasses.replace(layer, activations=a), SMALL).sum())
    values = np.array(layer.activations)
    values[0, :2] = 0
    values[0, -2:] = 1
    assert np.isfinite(gradient(values)).all()
    assert np.mean(gradient(np.asarray(layer.activations))) > 0  # more activations, more cycles


@pytest.mark.slow
@pytest.mark.parametrize("inter_balance", [False, True])
def test_gradients_point_where_exact_cycles_fall(inter_balance: bool) -> None:
    """Against finite differences of exact cycles with common random numbers, per filter and channel."""
    arch = Phantom2D(rows=2, cols=2, inter_balance=inter_balance)
    rng = np.random.default_rng(2)
    layer = Layer.conv(varied(rng, (3, 3, 6, 8), 0.4), rng.random((1, 10, 10, 6)) < np.linspace(0.1, 0.9, 6))
    weights = np.clip(layer.weights, 0.2, 0.8)
    gradient = np.asarray(jax.grad(lambda w: expected_cycles_from(calibrate(layer, arch), [w])[0])(weights))
    halves = []
    for seed in range(2):
        uniform = np.random.default_rng(seed).random((60, *weights.shape))
        differences = np.zeros((6, 8))
        for channel, filter_ in itertools.product(range(6), range(8)):
            for sign in (1, -1):
                moved = weights.copy()
                moved[:, :, channel, filter_] += sign * 0.15
                layers = (dataclasses.replace(layer, weights=bits < moved) for bits in uniform)
                differences[channel, filter_] += sign * simulate(layers, arch).cycles[0]
        halves.append(differences.reshape(-1))
    summed = gradient.sum((0, 1)).reshape(-1)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(*halves) > 0.95
    assert cosine(summed, halves[0] + halves[1]) > 0.9


# 6. It composes.


def test_it_composes_with_transformations() -> None:
    layers = [mesh_layer("segments", 0.4), mesh_layer("along chunks, filters", 0.4)]
    arch = Phantom2D()
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

    kept = jax.tree.leaves(jax.grad(loss)(weights))
    again = jax.tree.leaves(jax.jit(jax.grad(jax.checkpoint(loss)))(weights))
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    stacked = jax.tree.map(lambda array: np.stack([array, array]), masks(layers[0], np.float32))
    of_layers = jax.vmap(lambda layer: expected_cycles(layer, arch))(stacked)
    np.testing.assert_allclose(of_layers[:, 0, 0], simulate(masks(layers[0]), arch).cycles[0], rtol=1e-5)


def test_new_values_compile_nothing() -> None:
    layer, arch = mesh_layer("segments", 0.4), Phantom2D()
    step = jax.jit(jax.value_and_grad(lambda weights, calibration: expected_cycles_from(calibration, [weights])[0]))
    step(layer.weights, calibrate(layer, arch))
    other = dataclasses.replace(layer, activations=~layer.activations)
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
    layer = Layer.conv(varied(RNG, (3, 3, 4, 8), 0.4), RNG.random((3, 9, 9, 4)) < 0.5)
    each = [
        float(expected_cycles(dataclasses.replace(layer, activations=image[None]), Phantom2D())[0, 0])
        for image in layer.activations
    ]
    np.testing.assert_allclose(expected_cycles(layer, Phantom2D())[0], each, rtol=1e-5)
    np.testing.assert_allclose(
        expected_cycles_from(calibrate(layer, Phantom2D()), [layer.weights])[0], np.mean(each), rtol=1e-5
    )


# Sampling.


def test_sampled_rounds_and_chunks_are_unbiased() -> None:
    layer = Layer.conv(varied(RNG, (3, 3, 16, 36), 0.4), RNG.random((1, 8, 8, 16)) < 0.5)
    arch = Phantom2D(rows=3, cols=3)
    calibration = calibrate(layer, arch)
    step = jax.jit(
        jax.value_and_grad(
            lambda weights, key: expected_cycles_from(calibration, [weights], rounds=1, chunks=4, key=key)[0]
        )
    )
    whole, whole_gradient = jax.value_and_grad(lambda w: expected_cycles_from(calibration, [w])[0])(layer.weights)
    values, gradients = zip(*(step(layer.weights, jax.random.key(seed)) for seed in range(300)), strict=True)
    error = np.std(values) / 300**0.5
    assert 0 < error < 0.02 * whole
    assert abs(np.mean(values) - whole) < 4 * error + 0.005 * whole  # loads are drawn anew each time
    mean_gradient = np.mean(gradients, axis=0).reshape(-1)
    reference = np.asarray(whole_gradient).reshape(-1)
    cosine = mean_gradient @ reference / np.linalg.norm(mean_gradient) / np.linalg.norm(reference)
    assert cosine > 0.9
    assert abs(mean_gradient.sum() / reference.sum() - 1) < 0.05


def test_sampled_chunks_leave_the_value() -> None:
    layer, arch = mesh_layer("jobs", 0.4), Phantom2D()
    calibration = calibrate(layer, arch)
    sampled = expected_cycles_from(calibration, [layer.weights], chunks=3, key=jax.random.key(0))
    np.testing.assert_allclose(sampled, expected_cycles_from(calibration, [layer.weights]), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (80, 6)], ids=["along positions", "along chunks"])
def test_kernels_are_sampled_where_tables_would_be_too_large(shape: tuple[int, ...]) -> None:
    arch = Phantom2D(rows=1, cols=1, pes=2, threads=9, lookahead=8)
    activations = RNG.random((1, 80) if len(shape) == 2 else (1, 8, 8, 4)) < 0.6
    layer = (Layer.dense if len(shape) == 2 else Layer.conv)(varied(RNG, shape, 0.4), activations)
    calibration = calibrate(layer, arch)
    assert calibration.layers[0].plan.method == "samples"
    mean, error = monte_carlo(layer, arch, 200)
    value, gradient = jax.value_and_grad(lambda w: expected_cycles_from(calibration, [w])[0])(layer.weights)
    assert abs(value - mean) < 0.03 * mean + 3 * error
    assert np.isfinite(gradient).all()
    step = 0.05  # along all weights at once, where the noise of the score function averages out
    ahead, _ = monte_carlo(dataclasses.replace(layer, weights=np.clip(layer.weights + step, 0, 1)), arch, 300, 1)
    behind, _ = monte_carlo(dataclasses.replace(layer, weights=np.clip(layer.weights - step, 0, 1)), arch, 300, 1)
    assert abs(gradient.sum() / ((ahead - behind) / (2 * step)) - 1) < 0.4


# Bad input.

ANYTHING: Any = 3
GOOD = Layer.conv(np.full((3, 3, 2, 4), 0.5), np.ones((1, 5, 5, 2), bool), name="first")


def replaced(**arrays: np.ndarray) -> Layer:
    return dataclasses.replace(GOOD, **arrays)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: expected_cycles(replaced(weights=np.full((3, 3, 2, 4), 1.5)), SMALL),
            r"weights of layers\[0\] \(first\).*1\.5",
        ),
        (lambda: expected_cycles(replaced(weights=np.full((3, 3, 2, 4), np.nan)), SMALL), r"weights of .*nan"),
        (
            lambda: expected_cycles(replaced(activations=np.full((1, 5, 5, 2), 3.0)), SMALL),
            r"activations of .*3\.0.*!= 0",
        ),
        (lambda: expected_cycles(replaced(weights=np.ones((3, 3, 2, 4), complex)), SMALL), "complex128"),
        (lambda: expected_cycles([], SMALL), "at least one Layer"),
        (lambda: expected_cycles(ANYTHING, SMALL), "layers must be a Layer"),
        (lambda: expected_cycles(GOOD, ANYTHING), "arch must be a Phantom2D"),
        (lambda: calibrate([GOOD, replaced(activations=np.ones((2, 5, 5, 2), bool))], SMALL), "batch of 2 images"),
        (lambda: expected_cycles_from(ANYTHING, [GOOD.weights]), "calibration must be what calibrate returned"),
        (lambda: expected_cycles_from(calibrate(GOOD, SMALL), []), "array for each of 1 layers, got 0"),
        (lambda: expected_cycles_from(calibrate(GOOD, SMALL), [np.ones((3, 3))]), r"weights\[0\] \(first\).*\(3, 3\)"),
        (lambda: expected_cycles_from(calibrate(GOOD, SMALL), [0.5]), r"weights\[0\] \(first\).*got 0\.5"),
        (lambda: expected_cycles_from(calibrate(GOOD, SMALL), [-GOOD.weights]), r"weights\[0\] \(first\).*-0\.5"),
        (lambda: expected_cycles_from(calibrate(GOOD, SMALL), [GOOD.weights], rounds=0), "rounds must be a positive"),
        (lambda: expected_cycles_from(calibrate(GOOD, SMALL), [GOOD.weights], chunks=2), "key must be"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan])
@pytest.mark.parametrize("argument", ["weights", "activations"])
def test_bad_traced_values_end_in_nan(argument: str, value: float) -> None:
    layer = replaced(activations=np.full((1, 5, 5, 2), 0.5))
    bad = np.array(getattr(layer, argument))
    bad.flat[3] = value
    result = jax.jit(lambda array: expected_cycles(dataclasses.replace(layer, **{argument: array}), SMALL))(bad)
    assert np.isnan(result).all()


def test_a_single_array_serves_a_single_layer() -> None:
    calibration = calibrate(GOOD, SMALL)
    assert expected_cycles_from(calibration, GOOD.weights) == expected_cycles_from(calibration, [GOOD.weights])
