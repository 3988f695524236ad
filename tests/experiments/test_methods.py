"""The learner's rival and its ablations: what the penalty's gradient is of in place of cycles."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.train.methods import DenseActivations, ExpectedMacs, SingleCore
from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles_from
from phantom_jax.sparsity import Cost, cycle_penalty, dense_cycles, macs_per_weight

ARCH = Phantom2D(rows=2, cols=2, pes=2, threads=2, lookahead=9, inter_balance=False)
SEEN = np.random.default_rng(4).random((1, 8, 8, 2)) < 0.7
LAYER = Layer.conv(np.ones((3, 3, 2, 6)), SEEN, name="only")
FULL = dataclasses.replace(LAYER, activations=np.ones_like(SEEN))
LOGITS = jnp.asarray(np.random.default_rng(5).normal(0, 1, LAYER.weights.shape), jnp.float32)
DENSE = dense_cycles([LAYER], ARCH)


def update(cost: Cost | None, layer: Layer, arch: Phantom2D) -> tuple[jax.Array, float]:
    """Returns what a penalty adds at its target, so with a weight of 1, and the share of cycles that it holds."""
    calibration = calibrate(layer, arch)
    share = float(expected_cycles_from(calibration, [jax.nn.sigmoid(LOGITS)]).sum()) / DENSE
    penalty = cycle_penalty(DENSE, min(share, 1.0), cost, gain=0.0, damping=0.0)
    extra: dict[str, Any] = {"calibration": calibration}
    if cost is not None:
        extra["cost_data"] = cost.data([layer], arch)
    updates: Any
    state: Any
    updates, state = penalty.update(
        {"only": jnp.zeros_like(LOGITS)}, penalty.init({"only": LOGITS}), {"only": LOGITS}, **extra
    )
    return updates["only"], float(state.cycles)


@pytest.mark.parametrize(
    ("cost", "layer", "arch", "is_same"),
    [
        (SingleCore(), LAYER, dataclasses.replace(ARCH, rows=1, cols=1), True),
        (SingleCore(), LAYER, ARCH, False),
        (DenseActivations(), FULL, ARCH, True),
        (DenseActivations(), LAYER, ARCH, False),
    ],
)
def test_ablations_have_the_gradient_of_cycles_where_they_leave_nothing_out(
    cost: Cost, layer: Layer, arch: Phantom2D, is_same: bool
) -> None:
    whole, cycles = update(None, layer, arch)
    part, held = update(cost, layer, arch)
    assert held == pytest.approx(cycles, rel=1e-6)
    differences = np.abs(np.asarray(part - whole))
    assert (differences.max() < 1e-4 * np.abs(whole).max()) == is_same


def test_of_macs_the_gradient_is_that_of_their_expected_share() -> None:
    macs = jnp.asarray(macs_per_weight(LAYER), jnp.float32)
    slope = jax.grad(lambda logits: (jax.nn.sigmoid(logits) * macs).sum() / macs.sum())(LOGITS)
    found, _ = update(ExpectedMacs(), LAYER, ARCH)
    np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-8)


def test_without_a_mesh_the_gradient_is_that_of_a_sum_over_jobs() -> None:
    """A core alone takes what its jobs take: the maximum over cores, in rounds, is gone."""
    alone = calibrate(LAYER, dataclasses.replace(ARCH, rows=1, cols=1))

    def log_of_cycles(logits: jax.Array) -> jax.Array:
        weights = jax.nn.sigmoid(logits)
        filters = [jnp.zeros_like(weights).at[..., k].set(weights[..., k]) for k in range(weights.shape[-1])]
        bubbles = expected_cycles_from(alone, [jnp.zeros_like(weights)]).sum()
        by_filter = jnp.stack([expected_cycles_from(alone, [one]).sum() - bubbles for one in filters])
        return jnp.log(by_filter.sum() + bubbles)

    found, share = update(SingleCore(), LAYER, ARCH)
    np.testing.assert_allclose(found, share * jax.grad(log_of_cycles)(LOGITS), rtol=1e-3, atol=1e-6)
