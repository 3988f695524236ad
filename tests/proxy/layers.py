"""Layers of probabilities, and what exact counts of drawn masks say of them."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from phantom_jax import Calibration, Layer, Phantom2D, expected_cycles_from, simulate

ONE_CORE = Phantom2D(rows=1, cols=1)


def masks(layer: Layer, dtype: type | None = None) -> Layer:
    """Returns a layer whose arrays hold 0 and 1."""
    weights, activations = np.asarray(layer.weights) != 0, np.asarray(layer.activations) != 0
    return dataclasses.replace(layer, weights=weights.astype(dtype or bool), activations=activations)


def monte_carlo(layer: Layer, arch: Phantom2D, draws: int, seed: int = 0) -> tuple[float, float]:
    """Returns the mean of the exact cycles over drawn bits, and its standard error; floating arrays are drawn."""
    rng = np.random.default_rng(seed)

    def draw(array: np.ndarray) -> np.ndarray:
        return rng.random(array.shape) < array if np.issubdtype(array.dtype, np.floating) else array

    drawn = [
        dataclasses.replace(layer, weights=draw(layer.weights), activations=draw(layer.activations))
        for _ in range(draws)
    ]
    cycles = [one.cycles[0] for one in simulate(drawn, arch).layers]
    return float(np.mean(cycles)), float(np.std(cycles) / draws**0.5)


def varied(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> np.ndarray:
    """Returns probabilities that differ by filter, channel and tap."""
    filters = rng.beta(2, 2 / density - 2, shape[-1])
    channels = rng.uniform(0.5, 1.5, (shape[-2], 1))
    taps = rng.uniform(0.7, 1.3, (*shape[:-2], 1, 1))
    return np.clip(filters * channels * taps, 0, 1).astype(np.float32)


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

# A layer for each way and row axis, with level-2 balance and without; the code of the others is the same.
_FAST = {
    *(("jobs", True), ("segments", True), ("along chunks, filters", False)),
}
KINDS = [
    pytest.param(name, balance, marks=[] if (name, balance) in _FAST else pytest.mark.slow)
    for name in MESH
    for balance in (False, True)
]


def quick_arch(name: str, inter_balance: bool) -> Phantom2D:
    """Returns an accelerator that compiles fast: of few slots, but that a depthwise kernel fits; of few masks."""
    if name == "depthwise":
        return Phantom2D(inter_balance=inter_balance)
    return Phantom2D(inter_balance=inter_balance, pes=2, threads=2, lookahead=9)


@jax.jit
def value_and_gradient(weights: Any, calibration: Calibration) -> tuple[jax.Array, jax.Array]:
    """Returns a layer's expected cycles and their gradient; tests share what is compiled."""
    return jax.value_and_grad(lambda weights: expected_cycles_from(calibration, [weights])[0])(weights)


def mesh_layer(name: str, density: float) -> Layer:
    weights, activations, groups = MESH[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    mask = rng.random(activations) < np.clip(rng.beta(2, 2, activations[-1]), 0.1, 1)
    if len(weights) == 2:
        return Layer.dense(varied(rng, weights, density), mask)
    return Layer.conv(varied(rng, weights, density), mask, feature_group_count=groups, strides=2 if groups > 2 else 1)
