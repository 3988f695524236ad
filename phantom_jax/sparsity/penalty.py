"""Expected cycles as a penalty on keep probabilities, as an optax transformation."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from phantom_jax.checks import number
from phantom_jax.relaxed import Calibration, expected_cycles_from


class CyclePenaltyState(NamedTuple):
    """State of `cycle_penalty`."""

    step: jax.Array  # updates so far
    multiplier: jax.Array
    cycles: jax.Array  # expected at the last update, as a share of the dense cycles
    target: jax.Array  # likewise, what was wanted then


def cycle_penalty(
    dense_cycles: float,
    target: float | optax.Schedule,
    weight: float = 1.0,
    gain: float = 0.02,
    pull: float = 4.0,
) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of weight * expected cycles / dense cycles to that of logits of keep probabilities.

    The weight is set by a controller: it is a Lagrange multiplier, which grows while more cycles are expected than
    wanted and shrinks while fewer are, times a factor for how far off they are now.

    The transformation is for parameters that are logits: a mapping of layers' names to arrays, or the `Keep` variables
    of a `Masked` network; leaves are found by their layers' names, which must be among the keys on the path to them.
    `update` takes `calibration=`, what `calibrate` returned for the layers.

    Args:
        dense_cycles: Cycles of the dense network.
        target: Cycles that are wanted, as a share of the dense ones, or a schedule of it.
        weight: The first weight.
        gain: How much the multiplier's logarithm grows at an update, if cycles are twice the target.
        pull: Logarithm of the factor, if cycles are twice the target.

    Raises:
        ValueError: An argument is not a number that makes sense, or, from `update`, a layer's logits are missing.
    """
    positive = "a positive number"
    number("dense_cycles", dense_cycles, positive, lambda value: 0 < value < math.inf)
    number("weight", weight, positive, lambda value: 0 < value < math.inf)
    number("gain", gain, "a number of 0 or more", lambda value: 0 <= value < math.inf)
    number("pull", pull, "a number of 0 or more", lambda value: 0 <= value < math.inf)
    if not callable(target):
        number("target", target, "a number above 0 and at most 1, or a schedule of it", lambda value: 0 < value <= 1)

    def init(params: Any) -> CyclePenaltyState:
        del params
        return CyclePenaltyState(
            jnp.zeros((), jnp.int32), jnp.float32(weight), jnp.float32(jnp.nan), jnp.float32(jnp.nan)
        )

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, CyclePenaltyState]:
        calibration = extra.get("calibration")
        if params is None:
            raise ValueError("params must be the logits of keep probabilities, got None.")
        if not isinstance(calibration, Calibration):
            raise ValueError(f"calibration must be what calibrate returned, got {type(calibration).__name__}.")

        def share(logits: Any) -> jax.Array:
            by_name = _by_layer(logits, calibration.names)
            probabilities = [jax.nn.sigmoid(by_name[name]) for name in calibration.names]
            return expected_cycles_from(calibration, probabilities).sum() / dense_cycles

        cycles, gradient = jax.value_and_grad(share)(params)
        wanted = jnp.asarray(target(state.step) if callable(target) else target, cycles.dtype)
        off = jnp.clip(cycles / wanted - 1, -1, 1)
        grown = state.multiplier * jnp.exp(gain * off)
        now = grown * jnp.exp(pull * off)
        added = jax.tree.map(lambda update, slope: update + now * slope, updates, gradient)
        return added, CyclePenaltyState(state.step + 1, grown, cycles, wanted)

    return optax.GradientTransformationExtraArgs(init, update)


def _by_layer(params: Any, names: tuple[str, ...]) -> Mapping[str, jax.Array]:
    """Returns the leaves of parameters by the layer that they belong to."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        keys = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", None)))) for key in path]
        for name in names:
            if name in keys:
                found[name] = leaf
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"params must hold logits of each calibrated layer under its name; {', '.join(missing)} lack them."
        )
    return found
