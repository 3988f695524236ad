"""Checks of what belongs to layers by name."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from phantom_jax.layer import Layer, check_layers

Shape = tuple[int, ...]


def layers_by_name(layers: Layer | Iterable[Layer]) -> dict[str, Layer]:
    """Returns layers by name.

    Raises:
        ValueError: There is no layer, something is not a layer or holds traced arrays, layers differ in images, or two
            have one name.
    """
    named: dict[str, Layer] = {}
    for layer, name in check_layers(layers, traced=False):
        if name in named:
            raise ValueError(f"layers must have unique names, got {name} twice.")
        named[name] = layer
    return named


def shapes_of(layers: Mapping[str, Layer]) -> dict[str, Shape]:
    """Returns the shape of each layer's weights."""
    return {name: tuple(layer.weights.shape) for name, layer in layers.items()}


def arrays_by_name(argument: str, values: Any, shapes: Mapping[str, Shape] | None = None) -> dict[str, Any]:
    """Returns real arrays by layer, in the order of the shapes; those that are not JAX's become NumPy's.

    Args:
        argument: What to call them in messages.
        values: What a user gave.
        shapes: The layers that must be there, with the shape of their weights; any if None.

    Raises:
        ValueError: `values` is not a mapping, is empty, lacks a layer or holds an unknown one, or an array is of
            another shape, not of numbers or booleans, or holds NaN.
    """
    if not isinstance(values, Mapping) or not values:
        given = "an empty one" if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(f"{argument} must be a mapping from names of layers to arrays, got {given}.")
    if shapes is not None:
        lacking = [name for name in shapes if name not in values]
        unknown = [str(name) for name in values if name not in shapes]
        if lacking or unknown:
            raise ValueError(
                f"{argument} must hold an array for each layer ({', '.join(shapes)}) and no other; lacking: "
                f"{', '.join(lacking) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
            )
    arrays = {name: _array(f"{argument}[{name!r}]", values[name]) for name in (values if shapes is None else shapes)}
    for name, shape in (shapes or {}).items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{argument}[{name!r}] must be of the shape of the layer's weights, {shape}, got {arrays[name].shape}."
            )
    return arrays


def _array(argument: str, value: Any) -> Any:
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument} must be an array, got a ragged sequence: {error}") from None
    is_real = jnp.issubdtype(array.dtype, jnp.number) and not jnp.issubdtype(array.dtype, jnp.complexfloating)
    if not (array.dtype == bool or is_real):
        raise ValueError(f"{argument} must hold numbers or booleans, got dtype {array.dtype}.")
    if jnp.issubdtype(array.dtype, jnp.inexact) and not isinstance(array, Tracer):
        missing = int(np.count_nonzero(np.isnan(np.asarray(array))))
        if missing:
            raise ValueError(f"{argument} must not hold NaN, got {missing} of them.")
    return array
