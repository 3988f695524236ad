"""A layer: its geometry and its two masks, in the conventions of JAX and Flax (SPEC 2).

Everything a user hands in is checked here, once. What lies behind this boundary trusts a `Layer`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpy.typing import ArrayLike

from phantom_jax.checks import integer

_DATA_FIELDS = ("weights", "activations")
_META_FIELDS = ("strides", "padding", "input_dilation", "kernel_dilation", "feature_group_count", "name")


@functools.partial(jax.tree_util.register_dataclass, data_fields=_DATA_FIELDS, meta_fields=_META_FIELDS)
@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or a dense product with its weight mask and activation mask.

    Make one with `Layer.conv` or `Layer.dense`, which validate. A layer is a pytree whose leaves are `weights` and
    `activations`. A mask is any boolean or numeric array; an element counts as non-zero if it is `!= 0`.
    """

    weights: Any  # [*kernel, Cin/groups, K] or, dense, [Cin, K]
    activations: Any  # [B, *spatial, Cin] or, dense, [B, Cin] or [B, Q, Cin]
    strides: tuple[int, ...] = ()  # one per spatial axis; all of these are empty for a dense layer
    padding: tuple[tuple[int, int], ...] = ()  # (low, high) per spatial axis
    input_dilation: tuple[int, ...] = ()
    kernel_dilation: tuple[int, ...] = ()
    feature_group_count: int = 1
    name: str | None = None

    @classmethod
    def conv(
        cls,
        weights: ArrayLike,
        activations: ArrayLike,
        strides: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = "SAME",
        input_dilation: int | Sequence[int] = 1,
        kernel_dilation: int | Sequence[int] = 1,
        feature_group_count: int = 1,
        name: str | None = None,
    ) -> "Layer":
        """Returns a convolution of spatial rank 1, 2 or 3, with the argument names of `flax.nnx.Conv`.

        The meaning of each argument is that of `jax.lax.conv_general_dilated`; filter k belongs to group
        k // (K / feature_group_count).

        Args:
            weights: Weight mask `[*kernel, Cin/groups, K]` (HWIO).
            activations: Activation mask `[B, *spatial, Cin]` (NHWC).
            strides: Window strides, an int or one per spatial axis.
            padding: `"SAME"`, `"VALID"`, an int for every side, or per spatial axis an int or a (low, high) pair.
            input_dilation: Zeros-inserting dilation of the activations (transposed convolution), an int or one per
                axis. Other than 1 it needs explicit padding, as in JAX.
            kernel_dilation: Dilation of the kernel, an int or one per axis.
            feature_group_count: Groups that the channels and filters are divided into.
            name: The layer's name in reports; by default `layer0`, `layer1`, ... by position.

        Raises:
            ValueError: An argument is of the wrong shape, type or value, or the layer has no output position.
        """
        w = _array("weights", weights)
        a = _array("activations", activations)
        rank = w.ndim - 2
        if not 1 <= rank <= 3:
            raise ValueError(
                "weights of a convolution must have 3, 4 or 5 axes [*kernel, Cin/groups, K] for spatial rank 1, 2 or "
                f"3, got shape {w.shape}. (Layer.dense takes [Cin, K].)"
            )
        if a.ndim != w.ndim:
            raise ValueError(
                f"activations must have {w.ndim} axes [B, *spatial, Cin] to match weights of shape "
                f"{w.shape}, got shape {a.shape}."
            )
        groups = integer("feature_group_count", feature_group_count, minimum=1)
        channels, filters = a.shape[-1], w.shape[-1]
        if channels != w.shape[-2] * groups:
            raise ValueError(
                f"activations have {channels} channels, but weights of shape {w.shape} with feature_group_count "
                f"{groups} expect {w.shape[-2]} * {groups} = {w.shape[-2] * groups}."
            )
        if filters % groups:
            raise ValueError(f"feature_group_count {groups} does not divide the {filters} filters of weights.")
        strides = _per_axis("strides", strides, rank)
        input_dilation = _per_axis("input_dilation", input_dilation, rank)
        kernel_dilation = _per_axis("kernel_dilation", kernel_dilation, rank)
        kernel = [_dilated(size, dilation) for size, dilation in zip(w.shape, kernel_dilation, strict=False)]
        spatial = [_dilated(size, dilation) for size, dilation in zip(a.shape[1:], input_dilation, strict=False)]
        pairs = _padding(padding, spatial, kernel, strides, input_dilation)
        for axis, (size, (low, high), extent) in enumerate(zip(spatial, pairs, kernel, strict=True)):
            if extent > low + size + high:
                raise ValueError(
                    f"weights: the kernel spans {extent} elements on spatial axis {axis} (kernel_dilation included), "
                    f"but the padded input only has {low + size + high}; the layer would have no output position."
                )
        return cls(w, a, strides, pairs, input_dilation, kernel_dilation, groups, _name(name))

    @classmethod
    def dense(cls, weights: ArrayLike, activations: ArrayLike, name: str | None = None) -> "Layer":
        """Returns a dense (fully connected) layer.

        Args:
            weights: Weight mask `[Cin, K]`.
            activations: Activation mask `[B, Cin]`, or `[B, Q, Cin]` for Q positions per image.
            name: The layer's name in reports; by default `layer0`, `layer1`, ... by position.

        Raises:
            ValueError: A mask is of the wrong shape, type or value.
        """
        w = _array("weights", weights)
        a = _array("activations", activations)
        if w.ndim != 2:
            raise ValueError(f"weights of a dense layer must have 2 axes [Cin, K], got shape {w.shape}.")
        if a.ndim not in (2, 3):
            raise ValueError(f"activations of a dense layer must be [B, Cin] or [B, Q, Cin], got shape {a.shape}.")
        if a.shape[-1] != w.shape[0]:
            raise ValueError(
                f"activations have {a.shape[-1]} channels, but weights of shape {w.shape} expect {w.shape[0]}."
            )
        return cls(w, a, name=_name(name))

    @property
    def is_conv(self) -> bool:
        """Whether this is a convolution rather than a dense layer."""
        return bool(self.strides)

    @property
    def batch(self) -> int:
        """Images, B."""
        return self.activations.shape[0]

    @property
    def filters(self) -> int:
        """Filters over all groups, K."""
        return self.weights.shape[-1]

    @property
    def reduction(self) -> int:
        """Length of the reduction axis of one group, Rd = (Cin/groups) * prod(kernel)."""
        return math.prod(self.weights.shape[:-1])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Output positions per spatial axis; for a dense layer `(Q,)`, or `()` without a position axis."""
        if not self.is_conv:
            return tuple(self.activations.shape[1:-1])
        return tuple(
            (low + _dilated(size, input_dilation) + high - _dilated(kernel, kernel_dilation)) // stride + 1
            for size, kernel, stride, (low, high), input_dilation, kernel_dilation in zip(
                self.activations.shape[1:-1],
                self.weights.shape[:-2],
                self.strides,
                self.padding,
                self.input_dilation,
                self.kernel_dilation,
                strict=True,
            )
        )

    @property
    def positions(self) -> int:
        """Output positions per image, N."""
        return math.prod(self.output_shape)


def nonzero(values: ArrayLike) -> np.ndarray:
    """Returns the mask of an array: which of its elements count as non-zero."""
    values = np.asarray(values)
    return values if values.dtype == bool else values != 0


def _dilated(size: int, dilation: int) -> int:
    return (size - 1) * dilation + 1


def _array(argument: str, value: Any) -> Any:
    """Returns a boolean or numeric array without empty axes or NaN; traced arrays are checked by shape alone."""
    if not isinstance(value, (np.ndarray, jax.Array)):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{argument} must be a boolean or numeric array, got a ragged sequence: {error}") from None
    is_number = value.dtype == bool or jnp.issubdtype(value.dtype, jnp.number)
    if not is_number or value.dtype.kind == "m":  # NumPy counts time differences as integers
        raise ValueError(f"{argument} must be a boolean or numeric array, got dtype {value.dtype}.")
    if 0 in value.shape:
        raise ValueError(f"{argument} must not have an empty axis, got shape {value.shape}.")
    if jnp.issubdtype(value.dtype, jnp.inexact) and not isinstance(value, Tracer):
        missing = int(np.count_nonzero(np.isnan(np.asarray(value))))
        if missing:
            raise ValueError(f"{argument} must not hold NaN, got {missing} of them.")
    return value


def _length(value: Any) -> int | None:
    """Returns the length of a sequence or array, None for what has none (scalars, 0-d arrays, sets)."""
    if isinstance(value, (Set, Mapping)):
        return None
    try:
        return len(value)
    except TypeError:
        return None


def _entries(argument: str, value: Any, rank: int, convert: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    """Converts a sequence with one entry per spatial axis."""
    if isinstance(value, (str, bytes)) or _length(value) != rank:
        raise ValueError(f"{argument} must be an int or one entry for each of the {rank} spatial axes, got {value!r}.")
    return tuple(convert(f"{argument}[{axis}]", entry) for axis, entry in enumerate(value))


def _per_axis(argument: str, value: Any, rank: int) -> tuple[int, ...]:
    if _length(value) is None:
        return (integer(argument, value, minimum=1),) * rank
    return _entries(argument, value, rank, lambda name, entry: integer(name, entry, minimum=1))


def _padding(
    value: Any, spatial: Sequence[int], kernel: Sequence[int], strides: Sequence[int], input_dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Resolves padding to (low, high) pairs; `spatial` and `kernel` are sizes after dilation."""
    rank = len(spatial)
    if isinstance(value, str):
        if value not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID', an int or pairs of ints, got {value!r}.")
        if any(dilation != 1 for dilation in input_dilation):
            raise ValueError(
                f"padding must be an int or pairs of ints where input_dilation is not 1, got {value!r} with "
                f"input_dilation {tuple(input_dilation)}."
            )
        return tuple((int(low), int(high)) for low, high in jax.lax.padtype_to_pads(spatial, kernel, strides, value))
    if _length(value) is None:
        amount = integer("padding", value, minimum=0)
        return ((amount, amount),) * rank
    return _entries("padding", value, rank, _pair)


def _pair(argument: str, value: Any) -> tuple[int, int]:
    if _length(value) is None:
        amount = integer(argument, value, minimum=0)
        return amount, amount
    if isinstance(value, (str, bytes)) or _length(value) != 2:
        raise ValueError(f"{argument} must be an int or a (low, high) pair, got {value!r}.")
    return integer(argument, value[0], minimum=0), integer(argument, value[1], minimum=0)


def _name(name: Any) -> str | None:
    if name is not None and not isinstance(name, str):
        raise ValueError(f"name must be a string, got {name!r}.")
    return name


def check_layers(layers: Layer | Iterable[Layer], traced: bool) -> Iterator[tuple[Layer, str]]:
    """Checks the layers that `simulate` and its like are given, and gives those a name that have none.

    Args:
        layers: One layer or several; taken, and checked, when they are needed.
        traced: Whether layers may hold traced arrays.

    Raises:
        ValueError: See `simulate`.
    """
    if isinstance(layers, Layer):
        layers = [layers]
    if not isinstance(layers, Iterable):
        raise ValueError(f"layers must be a Layer or a sequence of them, got {layers!r}.")
    return _named(layers, traced)


def _named(layers: Iterable[Layer], traced: bool) -> Iterator[tuple[Layer, str]]:
    first: tuple[str, int] | None = None
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ValueError(f"layers[{index}] must be a Layer, got {layer!r}.")
        name = layer.name if layer.name is not None else f"layer{index}"
        if not traced and any(isinstance(array, Tracer) for array in (layer.weights, layer.activations)):
            raise ValueError(f"layers[{index}] ({name}) holds traced arrays; simulate needs concrete masks.")
        first = first or (name, layer.batch)
        if layer.batch != first[1]:
            raise ValueError(
                f"activations of layers[{index}] ({name}) have a batch of {layer.batch} images, but those of "
                f"{first[0]} have {first[1]}; all layers need the same."
            )
        yield layer, name
    if first is None:
        raise ValueError("layers must hold at least one Layer, got none.")
