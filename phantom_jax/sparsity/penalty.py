"""Expected cycles as a penalty on keep probabilities, as an optax transformation."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from phantom_jax.arch import Phantom2D
from phantom_jax.checks import number
from phantom_jax.layer import Layer
from phantom_jax.proxy import Calibration, expected_cycles_from

_MOST_GROWTH = 1e4  # of the multiplier, from the first weight, and likewise its inverse
_OF_VARIABLE = jax.tree_util.GetAttrKey("value")  # the last key of a path to an `nnx.Variable`'s array


class CyclePenaltyState(NamedTuple):
    """State of `cycle_penalty`."""

    step: jax.Array  # updates so far
    multiplier: jax.Array
    cycles: jax.Array  # expected at the last update, as a share of the dense cycles
    target: jax.Array  # likewise, what was wanted then


class Cost(Protocol):
    """What the gradient of `cycle_penalty` is of, in place of the expected cycles. Must be hashable."""

    def data(self, layers: Sequence[Layer], arch: Phantom2D) -> Any:
        """Returns a pytree of what the cost depends on, besides probabilities.

        Args:
            layers: Of the network, with activations of a few images.
            arch: The accelerator.
        """
        ...

    def __call__(self, probabilities: Sequence[jax.Array], share: jax.Array, data: Any) -> jax.Array:
        """Returns the cost, a scalar that can be differentiated by the probabilities.

        Args:
            probabilities: Of each layer's weights to be kept.
            share: Expected cycles as a share of the dense ones, a constant.
            data: What `data` returned.
        """
        ...


def cycle_penalty(
    dense_cycles: float,
    target: float | optax.Schedule,
    cost: Cost | None = None,
    weight: float = 1.0,
    gain: float = 0.02,
    damping: float = 4.0,
) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of weight * expected cycles / dense cycles to that of logits of keep probabilities.

    The weight is set by a controller: it is a Lagrange multiplier, which grows while more cycles are expected than
    wanted and shrinks while fewer are, times a factor for how far off they are now. It stays within a factor of 10,000
    of the first weight, so that a target out of reach leaves numbers finite, and the weight can recover after a target
    is met early.

    The transformation is for parameters that are logits: a mapping of layers' names to arrays, or the `Keep` variables
    of a `Masked` network; a leaf belongs to the layer whose name is last among the keys on the path to it. `update`
    takes `calibration=`, what `calibrate` returned for the layers, and maybe `target=`, in place of this function's.
    With a cost, the gradient is that of weight * cost, and `update` takes `cost_data=`, what `cost.data` returned; the
    controller holds the expected cycles as before.

    Args:
        dense_cycles: Cycles of the dense network.
        target: Cycles that are wanted, as a share of the dense ones, or a schedule of it.
        cost: What the gradient is of; the expected cycles, as a share of the dense ones, by default.
        weight: The first weight.
        gain: How much the multiplier's logarithm grows at an update, if cycles are twice the target.
        damping: Logarithm of the factor, if cycles are twice the target.

    Raises:
        ValueError: An argument is not a number that makes sense; or, from `update`, `calibration` or `params` is
            missing, `params` do not hold one array of logits for each layer, or `cost_data` is missing.
    """
    positive = "a positive number"
    number("dense_cycles", dense_cycles, "a number of cycles, at least 1", lambda value: 1 <= value < math.inf)
    number("weight", weight, positive, lambda value: 0 < value < math.inf)
    number("gain", gain, "a number of 0 or more", lambda value: 0 <= value < math.inf)
    number("damping", damping, "a number of 0 or more", lambda value: 0 <= value < math.inf)
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

        def share(logits: list[jax.Array]) -> jax.Array:
            return expected_cycles_from(calibration, _probabilities(logits)).sum() / dense_cycles

        leaves, structure = jax.tree.flatten(updates)
        if structure != jax.tree.structure(params):
            raise ValueError(
                f"updates must have the structure of params, {jax.tree.structure(params)}, got {structure}."
            )
        found = _by_layer(params, calibration)
        logits = [leaf for _, leaf in found]
        if cost is None:
            cycles, slopes = jax.value_and_grad(share)(logits)
        else:
            if extra.get("cost_data") is None:
                raise ValueError("cost_data must be what cost.data returned, got None.")
            cycles = share(logits)
            slopes = _slopes(cost, logits, cycles, extra["cost_data"])
        given = extra.get("target")
        if given is None:
            given = target(state.step) if callable(target) else target
        wanted = jnp.asarray(given, cycles.dtype)
        off = jnp.clip(cycles / wanted - 1, -1, 1)
        grown = jnp.clip(state.multiplier * jnp.exp(gain * off), weight / _MOST_GROWTH, weight * _MOST_GROWTH)
        now = grown * jnp.exp(damping * off)
        for (index, _), slope in zip(found, slopes, strict=True):
            leaves[index] += (now * slope).astype(leaves[index].dtype)
        return jax.tree.unflatten(structure, leaves), CyclePenaltyState(state.step + 1, grown, cycles, wanted)

    return optax.GradientTransformationExtraArgs(init, update)


def _probabilities(logits: Sequence[jax.Array]) -> list[jax.Array]:
    return [jax.nn.sigmoid(leaf.astype(jnp.float32)) for leaf in logits]


def _slopes(cost: Cost, logits: list[jax.Array], share: jax.Array, data: Any) -> list[jax.Array]:
    return jax.grad(lambda logits: cost(_probabilities(logits), share, data))(logits)


def _by_layer(params: Any, calibration: Calibration) -> list[tuple[int, jax.Array]]:
    """Returns the leaf of parameters that belongs to each layer, with its position among all leaves."""
    found: dict[str, tuple[int, Any]] = {}
    for index, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        keys = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", None)))) for key in path]
        if len(path) > 1 and path[-1] == _OF_VARIABLE:
            keys.pop()
        name = next((key for key in reversed(keys) if key in calibration.names), None)
        if name in found:
            raise ValueError(f"params must hold one array of logits for each layer, got several for {name}.")
        if name is not None:
            found[name] = index, leaf
    for layer, name in zip(calibration.layers, calibration.names, strict=True):
        if name not in found:
            raise ValueError(f"params must hold logits of each calibrated layer under its name; {name} lacks them.")
        leaf, shape = found[name][1], layer.plan.weights_shape
        if jnp.shape(leaf) != shape or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"params must hold floating logits of shape {shape} for {name}, got {jnp.result_type(leaf)} of shape "
                f"{jnp.shape(leaf)}."
            )
    return [found[name] for name in calibration.names]
