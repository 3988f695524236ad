"""The proxy: expected cycles over independent random weight bits, differentiable (SPEC 8 and 10)."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from phantom_jax.arch import Phantom2D, check_arch
from phantom_jax.exact import enable_cache
from phantom_jax.layer import Layer, check_layers
from phantom_jax.promotion import promotion
from phantom_jax.proxy.calibration import LayerCalibration, calibrate_layer
from phantom_jax.proxy.expectation import layer_cycles


@functools.partial(jax.tree_util.register_dataclass, data_fields=("layers",), meta_fields=("names",))
@dataclasses.dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns: a pytree, whose structure depends on shapes, names and the accelerator alone."""

    layers: tuple[LayerCalibration, ...]
    names: tuple[str, ...]


@promotion()
def expected_cycles(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Float[Array, "layers batch"]:
    """Returns the cycles that layers are expected to take, differentiable in floating weights and activations.

    A floating array holds the probabilities of independent bits; a boolean or integer one is a mask, as in `simulate`.
    Where all probabilities are 0 or 1, the result is the exact number of cycles. See docs/relaxation.md for what is
    exact elsewhere, and what is estimated.

    Args:
        layers: One layer or several; all with the same number of images B.
        arch: The accelerator.

    Returns:
        Expected cycles `[layers, B]`. Inside of `jit`, where values cannot be refused, layers with probabilities
        outside of [0, 1] have NaN.

    Raises:
        ValueError: There is no layer, something is not a layer, layers differ in B, `arch` is not an accelerator, or a
            floating array holds values outside of [0, 1].
    """
    named = _checked(layers, arch)
    for index, (layer, name) in enumerate(named):
        _check_probabilities(f"weights of layers[{index}] ({name})", layer.weights)
    return jnp.stack([layer_cycles(calibrate_layer(layer, arch), layer.weights) for layer, _ in named])


@promotion()
def calibrate(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Calibration:
    """Returns what the activations of layers say about their cycles, for any weights of the same shapes.

    Costly where `expected_cycles_from` is cheap: a training loop calls this once, and again when activations have
    changed. Hard (boolean or integer) activations are counted exactly.

    Args:
        layers: One layer or several, with activations of a calibration batch; weights may hold anything, as only their
            shapes matter.
        arch: The accelerator.

    Raises:
        ValueError: As in `expected_cycles`, but for values of weights.
    """
    named = _checked(layers, arch)
    return Calibration(tuple(calibrate_layer(layer, arch) for layer, _ in named), tuple(name for _, name in named))


@promotion()
def expected_cycles_from(calibration: Calibration, weights: Sequence[Any] | Any) -> Float[Array, " layers"]:
    """Returns the expected cycles per image of each layer, averaged over the images of the calibration.

    Args:
        calibration: What `calibrate` returned.
        weights: Probabilities (floating) or a mask (boolean or integer) of each layer; a single array for one layer.

    Returns:
        Expected cycles `[layers]`; NaN as in `expected_cycles`.

    Raises:
        ValueError: `calibration` is not what `calibrate` returned, or `weights` lacks an array, or has one of another
            shape than at calibration or with values outside of [0, 1].
    """
    if not isinstance(calibration, Calibration):
        raise ValueError(f"calibration must be what calibrate returned, got {type(calibration).__name__}.")
    shapes = [layer.plan.weights_shape for layer in calibration.layers]
    if len(shapes) == 1 and getattr(weights, "ndim", None) == len(shapes[0]):
        weights = [weights]
    if isinstance(weights, Mapping | str | Layer) or not isinstance(weights, Iterable):
        raise ValueError(
            f"weights must be a sequence of an array for each of {len(shapes)} layers, got {type(weights).__name__}."
        )
    weights = list(weights)
    if len(weights) != len(shapes):
        raise ValueError(f"weights must hold an array for each of {len(shapes)} layers, got {len(weights)}.")
    for index, (shape, name, array) in enumerate(zip(shapes, calibration.names, weights, strict=True)):
        argument = f"weights[{index}] ({name})"
        if not hasattr(array, "shape") or tuple(array.shape) != shape:
            given = getattr(array, "shape", f"a {type(array).__name__}")
            raise ValueError(f"{argument} must be an array of shape {shape}, as at calibration, got {given}.")
        _check_probabilities(argument, array)
    cycles = [layer_cycles(layer, array).mean() for layer, array in zip(calibration.layers, weights, strict=True)]
    return jnp.stack(cycles)


def _checked(layers: Layer | Iterable[Layer], arch: Phantom2D) -> list[tuple[Layer, str]]:
    check_arch(arch)
    named = list(check_layers(layers, traced=True))
    for index, (layer, name) in enumerate(named):
        _check_probabilities(f"activations of layers[{index}] ({name})", layer.activations, "!= 0 makes them a mask")
    enable_cache()
    return named


def _check_probabilities(argument: str, values: Any, hint: str = "") -> None:
    """Raises unless values are probabilities. Traced values are not checked."""
    if not (jnp.issubdtype(values.dtype, jnp.bool_) or jnp.issubdtype(values.dtype, jnp.number)) or jnp.issubdtype(
        values.dtype, jnp.complexfloating
    ):
        raise ValueError(f"{argument} must be probabilities or a mask, got dtype {values.dtype}.")
    if isinstance(values, Tracer) or not jnp.issubdtype(values.dtype, jnp.floating):
        return
    values = np.asarray(values)
    bad = values[~((values >= 0) & (values <= 1))]
    if bad.size:
        raise ValueError(
            f"{argument} must be probabilities in [0, 1] where they are floating, got {bad.size} others, such as "
            f"{bad[0]}.{hint and f' ({hint}.)'}"
        )
