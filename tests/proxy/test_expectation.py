"""One core has the true expectation (SPEC 8, points 2 and 4)."""

import dataclasses

import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, core_cycles, expected_cycles
from tests.proxy.layers import ONE_CORE, monte_carlo, varied

RNG = np.random.default_rng(5)  # of the cases below alone


def enumerated(layer: Layer, arch: Phantom2D) -> float:
    """Returns the expected cycles of a layer of one filter, from every weight mask there is: as many filters."""
    chances = np.asarray(layer.weights, np.float64)
    bits = np.arange(1 << chances.size) >> np.arange(chances.size)[:, None] & 1 == 1
    every = bits.reshape(*chances.shape[:-1], -1)
    cycles = core_cycles(dataclasses.replace(layer, weights=every), dataclasses.replace(arch, inter_balance=False))
    return float(np.where(every, chances, 1 - chances).reshape(chances.size, -1).prod(0) @ cycles[:, 0, 0])


ENUMERATED = {
    "3x3, one channel": (Layer.conv(RNG.random((3, 3, 1, 1)), RNG.random((1, 7, 7, 1)) < 0.5), ONE_CORE),
    "in order": (
        Layer.conv(RNG.random((3, 3, 1, 1)), RNG.random((1, 7, 7, 1)) < 0.7),
        dataclasses.replace(ONE_CORE, selector="in_order", lookahead=5),
    ),
    "two chunks": (
        Layer.conv(RNG.random((1, 1, 10, 1)), RNG.random((1, 4, 4, 10)) < 0.6),
        dataclasses.replace(ONE_CORE, lookahead=4),
    ),
    "no rotation, stride 2": (
        Layer.conv(RNG.random((2, 2, 3, 1)), RNG.random((1, 9, 9, 3)) < 0.6, strides=2),
        dataclasses.replace(ONE_CORE, pes=2, threads=2, intra_balance=False),
    ),
    "S = 16, of which 8 are occupied": (
        Layer.conv(RNG.random((2, 2, 2, 1)), RNG.random((1, 5, 5, 2)) < 0.6),
        dataclasses.replace(ONE_CORE, pes=4, threads=4, lookahead=6),
    ),
    "along chunks": (
        Layer.dense(RNG.random((11, 1)), RNG.random((1, 11)) < 0.8),
        dataclasses.replace(ONE_CORE, pes=1, threads=3),
    ),
    "along chunks, three PEs": (
        Layer.dense(RNG.random((11, 1)), np.ones((1, 11), bool)),
        dataclasses.replace(ONE_CORE, threads=1),
    ),
    "along chunks, T = 4": (
        Layer.dense(RNG.random((12, 1)), np.ones((1, 12), bool)),
        dataclasses.replace(ONE_CORE, pes=1, threads=4),
    ),
    "along chunks, in order, several blocks": (
        Layer.dense(RNG.random((12, 1)), RNG.random((1, 12)) < 0.9),
        dataclasses.replace(ONE_CORE, pes=1, threads=2, lookahead=2, selector="in_order"),
    ),
    "along chunks, two positions": (
        Layer.dense(RNG.random((9, 1)), RNG.random((1, 2, 9)) < 0.8),
        dataclasses.replace(ONE_CORE, pes=1, threads=2),
    ),
}


@pytest.mark.parametrize("name", ENUMERATED)
def test_one_core_has_the_true_expectation(name: str) -> None:
    layer, arch = ENUMERATED[name]
    np.testing.assert_allclose(expected_cycles(layer, arch)[0, 0], enumerated(layer, arch), rtol=1e-4)


@pytest.mark.parametrize("inter_balance", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    "name", ["3x3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pointwise", "5x5"))]
)
def test_one_core_sums_jobs_exactly(name: str, inter_balance: bool) -> None:
    shape = {"3x3": (3, 3, 8, 12), "pointwise": (1, 1, 40, 10), "5x5": (5, 5, 3, 6)}[name]
    rng = np.random.default_rng(1)
    layer = Layer.conv(varied(rng, shape, 0.4), rng.random((1, 12, 12, shape[-2])) < 0.5)
    arch = dataclasses.replace(ONE_CORE, inter_balance=inter_balance)
    mean, error = monte_carlo(layer, arch, 200)
    # On one core, cycles are a sum over jobs, whose exactness is enumerated above.
    assert abs(float(expected_cycles(layer, arch)[0, 0]) - mean) < 4 * error


PROBABLE = {
    "3x3": ((3, 3, 4, 6), (1, 8, 8, 4)),
    "pointwise": ((1, 1, 18, 6), (1, 6, 6, 18)),
    "dense": ((60, 8), (1, 60)),
    "dense of positions": ((60, 8), (1, 3, 60)),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "3x3" or "wise" in name or "of" in name else name
        for name in PROBABLE
    ],
)
def test_probable_activations_on_one_core(name: str) -> None:
    weights, activations = PROBABLE[name]
    make = Layer.dense if len(weights) == 2 else Layer.conv
    rng = np.random.default_rng(2)
    layer = make(varied(rng, weights, 0.5), np.clip(rng.beta(2, 2, activations), 0, 1).astype(np.float32))
    mean, error = monte_carlo(layer, ONE_CORE, 200)
    assert abs(float(expected_cycles(layer, ONE_CORE)[0, 0]) - mean) < 0.05 * mean + 3 * error
