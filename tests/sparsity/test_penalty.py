"""The penalty on expected cycles: its gradient, its controller, and how it finds logits."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from phantom_jax import Calibration, Layer, Phantom2D, calibrate, expected_cycles_from
from phantom_jax.sparsity import Keep, cycle_penalty, dense_cycles

ARCH = Phantom2D(rows=2, cols=2, inter_balance=False)
LAYER = Layer.conv(np.ones((3, 3, 2, 6)), np.random.default_rng(4).random((1, 8, 8, 2)) < 0.7, name="only")
LOGITS = jnp.asarray(np.random.default_rng(5).normal(0, 1, LAYER.weights.shape), jnp.float32)
DENSE = dense_cycles([LAYER], ARCH)


@functools.cache
def calibration() -> Calibration:
    return calibrate(LAYER, ARCH)


@functools.cache
def share_and_slope() -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the expected share of the dense cycles as a function of logits, and its gradient."""

    of_layer = calibration()

    def share(logits: jax.Array) -> jax.Array:
        return expected_cycles_from(of_layer, [jax.nn.sigmoid(logits)]).sum() / DENSE

    return jax.jit(jax.value_and_grad(share))


def updated(penalty: Any, params: Any, state: Any = None, **options: Any) -> tuple[Any, Any]:
    """Returns updates of zeros with what a penalty adds, and its state."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = penalty.init(params) if state is None else state
    return penalty.update(zeros, state, params, **{"calibration": calibration(), **options})


def test_the_penalty_adds_the_gradient_of_the_expected_share() -> None:
    share, slope = share_and_slope()(LOGITS)
    penalty = cycle_penalty(DENSE, 0.5 * float(share), weight=3.0, gain=0.0, damping=0.0)
    updates, state = updated(penalty, {"only": LOGITS})
    np.testing.assert_allclose(updates["only"], 3 * slope, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose([state.cycles, state.target], [share, share / 2], rtol=1e-6)
    added: Any
    added, _ = penalty.update({"only": jnp.ones_like(LOGITS)}, state, {"only": LOGITS}, calibration=calibration())
    np.testing.assert_allclose(added["only"], 1 + updates["only"], rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class Kept:
    """The probabilities, times what `data` says."""

    factor: float = 1.0

    def data(self, layers: Sequence[Layer], arch: Phantom2D) -> list[jax.Array]:
        return [jnp.full(layer.weights.shape, self.factor) for layer in layers]

    def __call__(self, probabilities: Sequence[jax.Array], share: jax.Array, data: list[jax.Array]) -> jax.Array:
        return share * sum(((p * factor).sum() for p, factor in zip(probabilities, data, strict=True)), jnp.zeros(()))


def test_with_a_cost_it_adds_the_gradient_of_that_and_holds_cycles() -> None:
    share, _ = share_and_slope()(LOGITS)
    chances = jax.nn.sigmoid(LOGITS)
    penalty, cost = cycle_penalty(DENSE, float(share), Kept(0.5), weight=3.0), Kept(0.5)
    updates, state = updated(penalty, {"only": LOGITS}, cost_data=cost.data([LAYER], ARCH))
    np.testing.assert_allclose(updates["only"], 3 * 0.5 * share * chances * (1 - chances), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(state.cycles, share, rtol=1e-6)


def test_a_target_given_to_an_update_replaces_that_of_the_penalty() -> None:
    _, state = updated(cycle_penalty(DENSE, 0.5), {"only": LOGITS}, target=0.25)
    assert state.target == 0.25


def test_its_weight_is_pulled_at_once_and_grows_or_shrinks_step_by_step() -> None:
    share, slope = map(np.asarray, share_and_slope()(LOGITS))
    for factor, off in ((0.8, 0.25), (1.25, -0.2), (0.1, 1.0)):  # at most as if cycles were twice the target
        penalty, state = cycle_penalty(DENSE, factor * float(share), weight=2.0, gain=0.1, damping=1.5), None
        for step in (1, 2):
            updates, state = updated(penalty, {"only": LOGITS}, state)
            assert state.step == step
            np.testing.assert_allclose(state.multiplier, 2 * np.exp(step * 0.1 * off), rtol=1e-5)
            weight = 2 * np.exp(step * 0.1 * off + 1.5 * off)
            np.testing.assert_allclose(updates["only"], weight * slope, rtol=1e-3, atol=1e-7)


def test_its_weight_stays_finite_and_can_come_back() -> None:
    penalty = cycle_penalty(DENSE, optax.piecewise_constant_schedule(1e-3, {1: 1e6}), weight=2.0, gain=100.0)
    _, state = updated(penalty, {"only": LOGITS})
    assert state.multiplier == 2e4
    updates, state = updated(penalty, {"only": LOGITS}, state)
    assert state.multiplier == pytest.approx(2e-4)
    assert np.isfinite(updates["only"]).all()
    assert (updates["only"] != 0).any()


def test_a_target_may_be_a_schedule_of_the_step() -> None:
    penalty, state = cycle_penalty(DENSE, optax.linear_schedule(1.0, 0.5, 2)), None
    for wanted in (1.0, 0.75, 0.5, 0.5):
        _, state = updated(penalty, {"only": LOGITS}, state)
        assert state.target == wanted


@pytest.mark.parametrize(
    "params",
    [
        {"only": LOGITS, "step": jnp.arange(3), "other": jnp.ones(2)},
        {"only": {"only": LOGITS}, "keep": {}},
        nnx.State({"keep": {"only": Keep(LOGITS)}}),
        [{"value": LOGITS.astype(jnp.bfloat16), "only": LOGITS.astype(jnp.bfloat16)}],
    ],
    ids=["others", "nested", "variables", "bfloat16"],
)
def test_logits_are_found_by_name_and_nothing_else_is_changed(params: Any) -> None:
    penalty = cycle_penalty(DENSE, 0.5, damping=0.0, gain=0.0)
    updates, _ = updated(penalty, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    _, slope = share_and_slope()(LOGITS)
    for (path, update), before in zip(
        jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params), strict=True
    ):
        assert update.dtype == before.dtype
        if "only" in jax.tree_util.keystr(path):
            tolerance = 0.02 if update.dtype == jnp.bfloat16 else 1e-4
            np.testing.assert_allclose(np.asarray(update, np.float32), slope, rtol=tolerance, atol=tolerance / 100)
        else:
            assert not np.asarray(update).any()


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_toy_task_meets_its_target(share: float) -> None:
    """Weights that the task wants to keep, more or less, against cycles: the controller finds the price."""
    worth = jnp.asarray(np.random.default_rng(6).random(LAYER.weights.shape), jnp.float32)
    logits = {"only": jnp.full(LAYER.weights.shape, 2.0)}
    target = share * float(share_and_slope()(logits["only"])[0])
    optimizer, of_layer = optax.chain(cycle_penalty(DENSE, target), optax.adam(0.1)), calibration()

    @jax.jit
    def run(logits: Any, state: Any) -> tuple[Any, Any]:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            logits, state = carry
            gradient = jax.grad(lambda logits: ((1 - jax.nn.sigmoid(logits["only"])) ** 2 * worth).mean())(logits)
            updates, state = optimizer.update(gradient, state, logits, calibration=of_layer)
            return (optax.apply_updates(logits, updates), state), None

        return jax.lax.scan(step, (logits, state), None, 600)[0]

    logits, state = run(logits, optimizer.init(logits))
    assert float(share_and_slope()(logits["only"])[0]) == pytest.approx(target, rel=0.03)
    assert float(state[0].cycles) == pytest.approx(target, rel=0.03)
    kept = np.asarray(jax.nn.sigmoid(logits["only"]))
    assert np.corrcoef(kept.ravel(), worth.ravel())[0, 1] > 0.7


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "dense_cycles": (lambda: cycle_penalty(0, 0.5), "dense_cycles must be a number of cycles, at least 1, got 0"),
    "a share as dense_cycles": (lambda: cycle_penalty(0.1, 0.5), "dense_cycles must be .* at least 1, got 0.1"),
    "target": (lambda: cycle_penalty(10, 1.5), "target must be a number above 0 and at most 1"),
    "weight": (lambda: cycle_penalty(10, 0.5, weight=-1), "weight must be a positive number, got -1"),
    "gain": (lambda: cycle_penalty(10, 0.5, gain=-1), "gain must be a number of 0 or more, got -1"),
    "damping": (lambda: cycle_penalty(10, 0.5, damping=float("nan")), "damping must be a number of 0 or more, got nan"),
    "params": (lambda: updated(cycle_penalty(10, 0.5), None), "params must be the logits .* got None"),
    "calibration": (lambda: updated(cycle_penalty(10, 0.5), {}, calibration=0), "calibration must be .* got int"),
    "params lack": (lambda: updated(cycle_penalty(10, 0.5), {"other": LOGITS}), "params must hold .* only lacks them"),
    "params twice": (
        lambda: updated(cycle_penalty(10, 0.5), {"only": [LOGITS] * 2}),
        "params must .* several for only",
    ),
    "params shape": (
        lambda: updated(cycle_penalty(10, 0.5), {"only": LOGITS[0]}),
        "params must .* got float32 of shape",
    ),
    "params type": (lambda: updated(cycle_penalty(10, 0.5), {"only": LOGITS > 0}), "params must .* got bool of shape"),
    "cost data": (
        lambda: updated(cycle_penalty(10, 0.5, Kept()), {"only": LOGITS}),
        "cost_data must be what cost.data returned, got None",
    ),
    "updates": (
        lambda: cycle_penalty(10, 0.5).update({}, (), {"only": LOGITS}, calibration=calibration()),
        "updates must have the structure of params",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
