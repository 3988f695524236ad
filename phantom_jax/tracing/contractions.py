"""From the operands of convolutions and products to layers in the layout of `Layer` (SPEC 2)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jax.experimental import sparse

from phantom_jax.layer import Layer
from phantom_jax.tracing.images import Images
from phantom_jax.tracing.origins import INDICES, Operand, union
from phantom_jax.tracing.traced import KeyPath, to_mask

_SPARSE = ("bcoo_dot_general", "bcsr_dot_general", "coo_matmat", "coo_matvec", "csr_matmat", "csr_matvec")
_OF_BOTH_SPARSE = ("bcoo_spdot_general", "bcoo_dot_general_sampled")
_BY_ROWS = ("ragged_dot_general", "scaled_matmul")
CONTRACTIONS = ("conv_general_dilated", "dot_general", *_SPARSE, *_OF_BOTH_SPARSE, *_BY_ROWS)


class NotALayerError(Exception):
    """A contraction makes no layer; the message is the reason."""


class Contraction(NamedTuple):
    """A convolution, or the product of two arrays."""

    primitive: str  # one of CONTRACTIONS; that of a product with a sparse matrix is "dot_general"
    params: Mapping[str, Any]  # as in a jaxpr
    left: Operand
    right: Operand

    @classmethod
    def of(cls, primitive: str, params: Mapping[str, Any], operands: Sequence[Operand]) -> "Contraction":
        """Returns the contraction of an equation, sparse matrices as dense ones."""
        if primitive not in _SPARSE:
            return cls(primitive, params, *operands[:2])
        *parts, right = operands
        matrix, numbers = _dense(primitive, params, [part.array for part in parts])
        left = Operand(matrix, parts[0].origin, union(parts))
        return cls("dot_general", {"dimension_numbers": numbers}, left, right)

    @property
    def weights_side(self) -> Literal["left", "right"] | None:
        """Where the weights are; None if what the operands derive from does not show it."""
        left, right = self.left, self.right
        if self.primitive == "conv_general_dilated":
            # By its place, an argument alone is the kernel too.
            is_own = len(right.kinds) == 1 and not right.kinds & left.kinds and INDICES not in right.kinds
            return "right" if left.is_active and (right.is_weights or is_own) else None
        if left.is_active and right.is_weights:
            return "right"
        return "left" if left.is_weights and right.is_active else None

    @property
    def source(self) -> KeyPath | None:
        """The key path of the weights, if there is one."""
        weights = {"left": self.left, "right": self.right}.get(self.weights_side or "")
        return weights.origin.path if weights and weights.origin else None

    def swapped(self) -> "Contraction":
        """Returns the same product with its sides exchanged; a convolution as it is."""
        if self.primitive != "dot_general":
            return self
        (left, right), (left_batch, right_batch) = self.params["dimension_numbers"]
        numbers = ((right, left), (right_batch, left_batch))
        return self._replace(params={"dimension_numbers": numbers}, left=self.right, right=self.left)

    def turned(self) -> "Contraction":
        """Returns the same contraction with activations on the left and weights on the right.

        Raises:
            NotALayerError: It is not a contraction of activations with one set of weights.
        """
        if self.primitive in _BY_ROWS:
            raise NotALayerError("its weights differ by rows or have scales by block; a layer has one set of weights")
        if self.primitive in _OF_BOTH_SPARSE:
            raise NotALayerError("both operands are sparse, or its result is sampled")
        if self.primitive == "dot_general" and self.params["dimension_numbers"][1][0]:
            raise NotALayerError(
                "it has batch axes, as in attention, or where each image has its own weights; a layer has one set of "
                "weights for all images"
            )
        if self.weights_side is None:
            raise NotALayerError(_why_no_weights(self.left, self.right))
        return self.swapped() if self.weights_side == "left" else self

    def layer(self, name: str, images: Images | None) -> Layer:
        """Returns the layer of a contraction that is turned, with boolean masks.

        Args:
            name: Its name.
            images: Where the left operand holds the images; by default along the first free axis.

        Raises:
            NotALayerError: It makes none.
            ValueError: An operand holds NaN.
        """
        return (_convolution if self.primitive == "conv_general_dilated" else _product)(self, name, images)


def activations_of(contraction: Contraction, values: Any) -> Any:
    """Returns the values of the left operand, of NumPy or JAX, with the channels that it contracts as its last axis.

    Of a convolution, it is `[B, *spatial, Cin]`; of a product, free axes come first, and contracted ones are one.
    """
    numbers = contraction.params["dimension_numbers"]
    if contraction.primitive == "conv_general_dilated":
        batch, channels, *spatial = numbers.lhs_spec
        return values.transpose(batch, *spatial, channels)
    contracting = numbers[0][0]
    free = _free(values, contracting)
    depth = math.prod(values.shape[axis] for axis in contracting)
    return values.transpose(*free, *contracting).reshape(*(values.shape[axis] for axis in free), depth)


def convolution(
    weights: np.ndarray, activations: np.ndarray, name: str, images: Images | None = None, **geometry: Any
) -> Layer:
    """Returns a convolution of masks in the layout of `Layer.conv`; padding may be negative, as in XLA.

    Where an image has several frames in the batch, which share the kernel, they become a spatial axis. Where padding
    crops all elements of an axis, the layer reads zeros alone.

    Args:
        weights: `[*kernel, Cin/groups, K]`.
        activations: `[N, *spatial, Cin]`.
        name: The layer's name.
        images: Where the activations hold the images; N of them, unless this is known of the first axis.
        **geometry: Strides, padding as pairs, dilations, groups; as `Layer.conv` calls them.

    Raises:
        NotALayerError: `Layer.conv` refuses it, or nothing is left of an axis.
    """
    if images is not None and images.is_sure and images.axis == 0 and images.count < len(activations):
        activations, weights = images.first(activations, activations.ndim - 1), weights[None]
        per_axis = ("strides", "input_dilation", "kernel_dilation")
        geometry |= {key: (1, *geometry[key]) for key in per_axis} | {"padding": ((0, 0), *geometry["padding"])}
    pads, dilations, kept, sizes = [], [], [], []
    axes = zip(activations.shape[1:-1], geometry["padding"], geometry["input_dilation"], strict=True)
    for axis, (size, (low, high), dilation) in enumerate(axes):
        length = max((size - 1) * dilation + 1, 0) + low + high
        if length < 1:
            raise NotALayerError(f"padding leaves nothing of spatial axis {axis}, of {size} elements")
        # An element and the zeros inserted after it go together; what that takes too many is padded again.
        first, last = (-(min(pad, 0) // dilation) for pad in (low, high))
        is_left = first + last < size
        pads.append((low + first * dilation, high + last * dilation) if is_left else (0, 0))
        dilations.append(dilation if is_left else 1)
        kept.append(slice(first, size - last) if is_left else slice(0))
        sizes.append(size - last - first if is_left else length)
    cropped = activations[(slice(None), *kept)]
    if 0 in cropped.shape[1:-1]:
        cropped = np.zeros((len(activations), *sizes, activations.shape[-1]), bool)
    geometry = {**geometry, "padding": pads, "input_dilation": dilations}
    try:
        return Layer.conv(weights, np.ascontiguousarray(cropped), **geometry, name=name)
    except ValueError as error:
        raise NotALayerError(str(error)) from error


def product(weights: np.ndarray, activations: np.ndarray, name: str, images: Images | None) -> Layer:
    """Returns a dense layer of masks.

    Args:
        weights: `[Cin, K]`.
        activations: `[*free, Cin]`.
        name: The layer's name.
        images: Where the free axes hold the images; by default along the first.

    Raises:
        NotALayerError: `Layer.dense` refuses it.
    """
    *free, _ = activations.shape
    images = images or (Images(free[0], 0) if free else Images(1, None))
    try:
        return Layer.dense(np.ascontiguousarray(weights), np.ascontiguousarray(images.first(activations)), name=name)
    except ValueError as error:
        raise NotALayerError(str(error)) from error


def _dense(primitive: str, params: Mapping[str, Any], parts: Sequence[Any]) -> tuple[Any, Any]:
    """Returns the matrix whose parts a sparse primitive takes, and the dimension numbers of its product."""
    if not primitive.endswith("dot_general"):
        shape = params["shape"] if "shape" in params else params["spinfo"].shape
        kind = sparse.COO if primitive.startswith("coo") else sparse.CSR
        return kind(tuple(parts), shape=shape).todense(), (((int(not params["transpose"]),), (0,)), ((), ()))
    shape, numbers = params["lhs_spinfo"].shape, params["dimension_numbers"]
    (left, right), (batch, _) = numbers
    kept = len(batch)
    if kept and all(part.shape[:kept] == (1,) * kept for part in parts):  # jax.vmap over what one matrix multiplies
        parts, shape = [part.reshape(part.shape[kept:]) for part in parts], shape[kept:]
        numbers = ((tuple(axis - kept for axis in left), right), ((), ()))
    kind = sparse.BCOO if primitive.startswith("bcoo") else sparse.BCSR
    return kind(tuple(parts), shape=shape).todense(), numbers


def _why_no_weights(left: Operand, right: Operand) -> str:
    if left.is_active and right.is_active:
        return "both operands derive from activations; weight_argnums says which arguments hold weights"
    if left.is_active or right.is_active:
        return "its other operand is made of indices alone, as in resizing; it has no weights"
    return "both operands derive from parameters or constants; it has no activations"


def _convolution(contraction: Contraction, name: str, images: Images | None) -> Layer:
    left, right, params = contraction.left.array, contraction.right.array, contraction.params
    if params["batch_group_count"] != 1:
        raise NotALayerError(
            f"batch_group_count is {params['batch_group_count']}, as in gradients of weights; a layer's images share "
            "its filters"
        )
    numbers = params["dimension_numbers"]  # batch or filters, channels, then the spatial axes
    filters, depth, *kernel = numbers.rhs_spec
    axes = [numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]]
    return convolution(
        np.ascontiguousarray(to_mask(f"weights of {name}", right).transpose(*kernel, depth, filters)),
        activations_of(contraction, to_mask(f"activations of {name}", left)),
        name,
        images if images is None or images.axis is None else images.along(axes.index(images.axis)),
        strides=params["window_strides"],
        padding=params["padding"],
        input_dilation=params["lhs_dilation"],
        kernel_dilation=params["rhs_dilation"],
        feature_group_count=params["feature_group_count"],
    )


def _product(contraction: Contraction, name: str, images: Images | None) -> Layer:
    left, right = contraction.left.array, contraction.right.array
    (left_contracting, right_contracting), _ = contraction.params["dimension_numbers"]
    activations = activations_of(contraction, to_mask(f"activations of {name}", left))
    free = _free(right, right_contracting)
    weights = to_mask(f"weights of {name}", right).transpose(*right_contracting, *free)
    depth = math.prod(right.shape[axis] for axis in right_contracting)
    filters = math.prod(right.shape[axis] for axis in free)
    if images is not None and images.axis is not None:
        places = _free(left, left_contracting)
        images = None if images.axis in left_contracting else images.along(places.index(images.axis))
    return product(weights.reshape(depth, filters), activations, name, images)


def _free(operand: Any, contracting: Sequence[int]) -> list[int]:
    return [axis for axis in range(operand.ndim) if axis not in contracting]
