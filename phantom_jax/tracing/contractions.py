"""From the operands of `conv_general_dilated` and `dot_general` to a layer in the layout of `Layer` (SPEC 2)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phantom_jax.layer import Layer
from phantom_jax.tracing.traced import to_mask

CONTRACTIONS = ("conv_general_dilated", "dot_general", "ragged_dot_general", "scaled_matmul")


class NotALayerError(Exception):
    """A contraction makes no layer; the message is the reason."""


def to_layer(primitive: str, params: Mapping[str, Any], left: Any, right: Any, name: str) -> Layer:
    """Returns the layer of a contraction, with boolean masks.

    Args:
        primitive: One of `CONTRACTIONS`.
        params: Its parameters, as in a jaxpr.
        left: The values of the left operand, read as activations.
        right: The values of the right operand, read as weights.
        name: The layer's name.

    Raises:
        NotALayerError: It makes none.
        ValueError: An operand holds NaN.
    """
    if primitive == "conv_general_dilated":
        return _convolution(params, left, right, name)
    if primitive == "dot_general":
        return _product(params, left, right, name)
    raise NotALayerError("its weights differ by rows, or come in blocks with scales; a layer has one set of weights")


def activations_of(primitive: str, params: Mapping[str, Any], left: Any) -> Any:
    """Returns the left operand of a contraction, of NumPy or JAX, with the channels that it contracts as its last axis.

    Of a convolution, it is `[B, *spatial, Cin]`; of a product, free axes come first, and contracted ones are one.
    """
    numbers = params["dimension_numbers"]
    if primitive == "conv_general_dilated":
        batch, channels, *spatial = numbers.lhs_spec
        return left.transpose(batch, *spatial, channels)
    contracting = numbers[0][0]
    free = _free(left, contracting)
    depth = math.prod(left.shape[axis] for axis in contracting)
    return left.transpose(*free, *contracting).reshape(*(left.shape[axis] for axis in free), depth)


def convolution(weights: np.ndarray, activations: np.ndarray, name: str, **geometry: Any) -> Layer:
    """Returns a convolution of masks in the layout of `Layer.conv`; padding may be negative, as in XLA.

    Raises:
        NotALayerError: `Layer.conv` refuses it.
    """
    pads, kept = [], []
    for size, (low, high), dilation in zip(
        activations.shape[1:], geometry["padding"], geometry["input_dilation"], strict=False
    ):
        # An element and the zeros inserted after it go together; what that takes too many is padded again.
        first, last = (-(min(pad, 0) // dilation) for pad in (low, high))
        pads.append((low + first * dilation, high + last * dilation))
        kept.append(slice(first, max(size - last, 0)))
    cropped = activations[(slice(None), *kept)]
    try:
        return Layer.conv(weights, np.ascontiguousarray(cropped), **{**geometry, "padding": pads}, name=name)
    except ValueError as error:
        raise NotALayerError(str(error)) from error


def product(weights: np.ndarray, activations: np.ndarray, name: str) -> Layer:
    """Returns a dense layer of masks: weights `[Cin, K]`, activations `[..., Cin]` with B first, then positions.

    Raises:
        NotALayerError: `Layer.dense` refuses it.
    """
    *free, channels = activations.shape
    shape = (*free[:1], *([math.prod(free[1:])] if len(free) > 1 else []), channels) if free else (1, channels)
    try:
        return Layer.dense(np.ascontiguousarray(weights), np.ascontiguousarray(activations.reshape(shape)), name=name)
    except ValueError as error:
        raise NotALayerError(str(error)) from error


def _convolution(params: Mapping[str, Any], left: Any, right: Any, name: str) -> Layer:
    if params["batch_group_count"] != 1:
        raise NotALayerError(
            f"batch_group_count is {params['batch_group_count']}, as in gradients of weights; a layer's images share "
            "its filters"
        )
    numbers = params["dimension_numbers"]  # batch or filters, channels, then the spatial axes
    filters, depth, *kernel = numbers.rhs_spec
    return convolution(
        np.ascontiguousarray(to_mask("weights", right, name).transpose(*kernel, depth, filters)),
        activations_of("conv_general_dilated", params, to_mask("activations", left, name)),
        name,
        strides=params["window_strides"],
        padding=params["padding"],
        input_dilation=params["lhs_dilation"],
        kernel_dilation=params["rhs_dilation"],
        feature_group_count=params["feature_group_count"],
    )


def _product(params: Mapping[str, Any], left: Any, right: Any, name: str) -> Layer:
    (_, right_contracting), (batch, _) = params["dimension_numbers"]
    if batch:
        raise NotALayerError(
            "it has batch axes, as in attention, or where each image has weights of its own; a layer has one set of "
            "weights for all images"
        )
    activations = activations_of("dot_general", params, to_mask("activations", left, name))
    weights = to_mask("weights", right, name).transpose(*right_contracting, *_free(right, right_contracting))
    depth = math.prod(right.shape[axis] for axis in right_contracting)
    filters = math.prod(right.shape[axis] for axis in _free(right, right_contracting))
    return product(weights.reshape(depth, filters), activations, name)


def _free(operand: Any, contracting: Sequence[int]) -> list[int]:
    return [axis for axis in range(operand.ndim) if axis not in contracting]
