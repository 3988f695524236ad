"""Expected cycles as a penalty on keep probabilities, as an optax transformation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from phantom_jax.checks import number
from phantom_jax.proxy import Calibration, expected_cycles_from
from phantom_jax.sparsity.named import arrays_by_name

_FAR = 1e4  # how far the multiplier may get from the first weight
_OF_VARIABLE = jax.tree_util.GetAttrKey("value")  # the last key of a path to an `nnx.Variable`'s array


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
    damping: float = 4.0,
) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of weight * expected cycles / dense cycles to that of logits of keep probabilities.

    The weight is set by a controller: it is a Lagrange multiplier, which grows while more cycles are expected than
    wanted and shrinks while fewer are, times a factor for how far off they are now. It stays within a factor of 10,000
    of the first weight, so that a target out of reach leaves numbers finite, and one that is met early can come back.

    The transformation is for parameters that are logits: a mapping of layers' names to arrays, or the `Keep` variables
    of a `Masked` network; a leaf belongs to the layer whose name is last among the keys on the path to it. `update`
    takes `calibration=`, what `calibrate` returned for the layers, and maybe `target=`, in place of this function's.
    With `macs=`, effectual MACs of each weight by layer (`macs_per_weight`), the gradient is that of weight * expected
    MACs / MACs of all weights, while the controller holds cycles as before: a rival for comparisons. With `slopes=`, a
    calibration for another accelerator or other activations, a weight saves the share of the expected cycles that it
    would save there: the gradient is that of the cycles there, times the ratio of both. Cycles are held as before.

    Args:
        dense_cycles: Cycles of the dense network.
        target: Cycles that are wanted, as a share of the dense ones, or a schedule of it.
        weight: The first weight.
        gain: How much the multiplier's logarithm grows at an update, if cycles are twice the target.
        damping: Logarithm of the factor, if cycles are twice the target.

    Raises:
        ValueError: An argument is not a number that makes sense; or, from `update`, `calibration` or `params` are none,
            `params` do not hold one array of logits for each layer, `macs` not one of its MACs, or `slopes` is not a
            calibration of the same layers.
    """
    positive = "a positive number"
    number("dense_cycles", dense_cycles, positive, lambda value: 0 < value < math.inf)
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

        def share(logits: list[jax.Array], of: Calibration = calibration) -> jax.Array:
            probabilities = [jax.nn.sigmoid(leaf.astype(jnp.float32)) for leaf in logits]
            return expected_cycles_from(of, probabilities).sum() / dense_cycles

        leaves, structure = jax.tree.flatten(updates)
        if structure != jax.tree.structure(params):
            raise ValueError(
                f"updates must have the structure of params, {jax.tree.structure(params)}, got {structure}."
            )
        logits = _by_layer(params, calibration)
        macs, other = extra.get("macs"), extra.get("slopes")
        if macs is None and other is None:
            cycles, slopes = jax.value_and_grad(share)([leaf for _, leaf in logits])
        elif macs is None:
            if not isinstance(other, Calibration) or other.names != calibration.names:
                given = ", ".join(other.names) if isinstance(other, Calibration) else type(other).__name__
                raise ValueError(f"slopes must be a calibration of {', '.join(calibration.names)}, got {given}.")
            cycles = share([leaf for _, leaf in logits])
            there, slopes = jax.value_and_grad(share)([leaf for _, leaf in logits], other)
            slopes = [cycles / there * slope for slope in slopes]
        else:
            cycles = share([leaf for _, leaf in logits])
            shapes = dict(
                zip(calibration.names, (layer.plan.weights_shape for layer in calibration.layers), strict=True)
            )
            counts = list(arrays_by_name("macs", macs, shapes).values())
            slopes = _slopes_of_macs([leaf for _, leaf in logits], counts)
        given = extra.get("target")
        if given is None:
            given = target(state.step) if callable(target) else target
        wanted = jnp.asarray(given, cycles.dtype)
        off = jnp.clip(cycles / wanted - 1, -1, 1)
        grown = jnp.clip(state.multiplier * jnp.exp(gain * off), weight / _FAR, weight * _FAR)
        now = grown * jnp.exp(damping * off)
        for (index, _), slope in zip(logits, slopes, strict=True):
            leaves[index] += (now * slope).astype(leaves[index].dtype)
        return jax.tree.unflatten(structure, leaves), CyclePenaltyState(state.step + 1, grown, cycles, wanted)

    return optax.GradientTransformationExtraArgs(init, update)


def _slopes_of_macs(logits: list[jax.Array], macs: list[jax.Array]) -> list[jax.Array]:
    """Returns the gradient of expected MACs, as a share of those of all weights."""
    total = jnp.stack([jnp.sum(counts) for counts in macs]).sum()
    chances = [jax.nn.sigmoid(leaf.astype(jnp.float32)) for leaf in logits]
    return [counts / total * p * (1 - p) for counts, p in zip(macs, chances, strict=True)]


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
