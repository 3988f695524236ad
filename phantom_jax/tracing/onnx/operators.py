"""ONNX's convolutions and products, also onnxruntime's own and quantized ones, as layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from phantom_jax.layer import Layer
from phantom_jax.tracing.contractions import NotALayerError, convolution, product
from phantom_jax.tracing.images import Images
from phantom_jax.tracing.traced import to_mask

MICROSOFT = "com.microsoft"  # onnxruntime's domain
VALUE_FREE = ("Shape", "Size")  # operators that read no value
Attributes = Mapping[str, Any]


class Operator(NamedTuple):
    """How an operator's inputs are read; positions are those of its inputs."""

    make: Callable[[np.ndarray, np.ndarray, Attributes, str, Images | None], Layer]  # of masks
    left: int = 0
    right: int = 1
    left_zero: int | None = None  # the zero points of quantized operands
    right_zero: int | None = None
    is_product: bool = False  # so that its weights may be on the left
    quantizes: bool = False  # its left operand, when it runs

    def layer(
        self,
        node: onnx.NodeProto,
        values: Mapping[str, np.ndarray],
        name: str,
        images: Images | None,
        weights_first: bool,
    ) -> Layer:
        """Returns the layer of a node.

        Args:
            node: A node of this operator.
            values: Of its operands and their zero points.
            name: The layer's name.
            images: Where its activations hold the images.
            weights_first: Whether its left operand is the weights.

        Raises:
            NotALayerError: It makes none.
            ValueError: An operand holds NaN.
        """
        roles = ("weights", "activations") if weights_first else ("activations", "weights")
        left = self._mask(node, values, self.left, self.left_zero, f"{roles[0]} of {name}")
        right = self._mask(node, values, self.right, self.right_zero, f"{roles[1]} of {name}")
        attributes = attributes_of(node)
        if not self.is_product:
            return self.make(right, left, attributes, name, images)
        # Channels go last in activations, first in weights.
        weights, activations = (left, right) if weights_first else (right, left)
        is_flipped = [bool(attributes.get(key, 0)) != weights_first for key in ("transA", "transB")]
        flip_weights, flip_activations = is_flipped if weights_first else is_flipped[::-1]
        if flip_activations and activations.ndim > 1:
            activations = activations.swapaxes(-1, -2)
            images = images and images.swapped(activations.ndim)
        if flip_weights and weights.ndim > 1:
            weights = weights.swapaxes(-1, -2)
        is_contracted = images is not None and images.axis == activations.ndim - 1
        return self.make(weights, activations, attributes, name, None if is_contracted else images)

    def read(self, node: onnx.NodeProto) -> list[str]:
        """Returns the names of the operands of a node and of their zero points."""
        places = (self.left, self.right, self.left_zero, self.right_zero)
        return [node.input[at] for at in places if at is not None and at < len(node.input) and node.input[at]]

    def _mask(
        self, node: onnx.NodeProto, values: Mapping[str, np.ndarray], at: int, zero: int | None, what: str
    ) -> np.ndarray:
        """Returns which elements of an operand differ from zero, or from its zero point."""
        array = values[node.input[at]]
        if self.quantizes and at == self.left:
            return to_mask(what, array) & _survives(array)
        if zero is None or zero >= len(node.input) or not node.input[zero]:
            return to_mask(what, array)
        point = values[node.input[zero]]
        if point.size > 1 and point.ndim == 1:  # one for each filter, or column, or row
            axis = 0 if not self.is_product else array.ndim - (1 if at == self.right else 2)
            point = point.reshape([-1 if other == axis else 1 for other in range(array.ndim)])
        return array != point


def node_name(node: onnx.NodeProto) -> str:
    """Returns what a node is called: its name, else that of its first output."""
    return node.name or node.output[0]


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the bodies of a node."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Returns a node's attributes by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def operator_of(node: onnx.NodeProto) -> Operator | None:
    """Returns how a node is read, None if it makes no layer."""
    return _OPERATORS.get((domain_of(node), node.op_type))


def domain_of(node: onnx.NodeProto) -> str:
    """Returns a node's domain, empty for that of ONNX."""
    return "" if node.domain == "ai.onnx" else node.domain


def _survives(values: np.ndarray) -> np.ndarray:
    """Returns which values differ from zero once they are quantized to 8 bits between their extremes."""
    low, high = min(float(values.min(initial=0)), 0), max(float(values.max(initial=0)), 0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    return np.rint(values / scale) != 0


def _geometry(attributes: Attributes, spatial: Sequence[int], kernel: Sequence[int]) -> dict[str, Any]:
    """Returns strides, dilations and pads of a convolution, one entry per spatial axis."""
    rank = len(spatial)
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    pads = attributes.get("pads", [0] * 2 * rank)
    pairs = list(zip(pads[:rank], pads[rank:], strict=True))
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        totals = [
            max((-(-size // stride) - 1) * stride + (extent - 1) * dilation + 1 - size, 0)
            for size, stride, extent, dilation in zip(spatial, strides, kernel, dilations, strict=True)
        ]
        pairs = [((total + (auto == "SAME_LOWER")) // 2, (total + (auto == "SAME_UPPER")) // 2) for total in totals]
    elif auto == "VALID":
        pairs = [(0, 0)] * rank
    return {"strides": strides, "kernel_dilation": dilations, "padding": pairs}


def _conv(
    weights: np.ndarray, activations: np.ndarray, attributes: Attributes, name: str, images: Images | None
) -> Layer:
    if not attributes.get("channels_last", 0):
        activations = np.moveaxis(activations, 1, -1)
    geometry = _geometry(attributes, activations.shape[1:-1], weights.shape[2:])
    return convolution(
        np.ascontiguousarray(weights.transpose(*range(2, weights.ndim), 1, 0)),
        activations,
        name,
        images,
        **geometry,
        input_dilation=[1] * len(geometry["strides"]),
        feature_group_count=attributes.get("group", 1),
    )


def _conv_transpose(
    weights: np.ndarray, activations: np.ndarray, attributes: Attributes, name: str, images: Images | None
) -> Layer:
    """A convolution of the dilated input with the mirrored kernel."""
    groups, kernel, spatial = attributes.get("group", 1), weights.shape[2:], activations.shape[2:]
    rank = len(kernel)
    geometry = _geometry({**attributes, "auto_pad": b"NOTSET"}, spatial, kernel)
    strides, dilations = geometry["strides"], geometry["kernel_dilation"]
    extra = attributes.get("output_padding", [0] * rank)
    margins = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    pairs = [(0, 0)] * rank if auto == "VALID" else geometry["padding"]
    if "output_shape" in attributes or auto.startswith("SAME"):
        # An output of a given size is cut out; of an odd cut, SAME_UPPER takes more at the end.
        whole = [size * stride for size, stride in zip(spatial, strides, strict=True)]
        wanted = attributes.get("output_shape", whole)[-rank:]
        totals = [
            (size - 1) * stride + more + margin + 1 - target
            for size, stride, more, margin, target in zip(spatial, strides, extra, margins, wanted, strict=True)
        ]
        least = -max(wanted) if "output_shape" in attributes else 0
        pairs = [_cut(max(total, least), auto != "SAME_UPPER") for total in totals]
    padding = [
        (margin - low, margin - high + more) for margin, (low, high), more in zip(margins, pairs, extra, strict=True)
    ]
    # [Cin, K/groups, *kernel] to [*kernel, Cin/groups, K], where filters of a group are neighbors.
    grouped = np.flip(weights, tuple(range(2, weights.ndim))).reshape(groups, -1, *weights.shape[1:])
    mirrored = grouped.transpose(*range(3, rank + 3), 1, 0, 2).reshape(*kernel, grouped.shape[1], -1)
    return convolution(
        mirrored,
        np.moveaxis(activations, 1, -1),
        name,
        images,
        strides=[1] * rank,
        padding=padding,
        input_dilation=strides,
        kernel_dilation=dilations,
        feature_group_count=groups,
    )


def _cut(total: int, more_at_start: bool) -> tuple[int, int]:
    if total < 0:  # the output's end, which no input reaches
        return 0, total
    small, large = total // 2, total - total // 2
    return (large, small) if more_at_start else (small, large)


def _gemm(
    weights: np.ndarray, activations: np.ndarray, attributes: Attributes, name: str, images: Images | None
) -> Layer:
    del attributes
    return product(weights, activations, name, images)


def _matmul(
    weights: np.ndarray, activations: np.ndarray, attributes: Attributes, name: str, images: Images | None
) -> Layer:
    if attributes.get("transBatchA", 0) or attributes.get("transBatchB", 0):
        raise NotALayerError("it moves batch axes before it multiplies, which is not read")
    while weights.ndim > 2 and len(weights) == 1:
        weights = weights[0]
    if weights.ndim > 2:
        raise NotALayerError("its weights have batch axes; a layer has one set of weights for all images")
    return product(weights[:, None] if weights.ndim == 1 else weights, activations, name, images)


_GEMM, _MATMUL = Operator(_gemm, is_product=True), Operator(_matmul, is_product=True)
_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "Conv"): Operator(_conv),
    ("", "ConvTranspose"): Operator(_conv_transpose),
    ("", "ConvInteger"): Operator(_conv, left_zero=2, right_zero=3),
    ("", "QLinearConv"): Operator(_conv, right=3, left_zero=2, right_zero=5),
    (MICROSOFT, "QLinearConv"): Operator(_conv, right=3, left_zero=2, right_zero=5),
    (MICROSOFT, "FusedConv"): Operator(_conv),
    ("", "Gemm"): _GEMM,
    (MICROSOFT, "FusedGemm"): _GEMM,
    (MICROSOFT, "QGemm"): Operator(_gemm, right=3, left_zero=2, right_zero=5, is_product=True),
    ("", "MatMul"): _MATMUL,
    (MICROSOFT, "FusedMatMul"): _MATMUL,
    (MICROSOFT, "TransposeMatMul"): _MATMUL,
    (MICROSOFT, "GemmFastGelu"): _MATMUL,
    ("", "MatMulInteger"): Operator(_matmul, left_zero=2, right_zero=3, is_product=True),
    (MICROSOFT, "MatMulIntegerToFloat"): Operator(_matmul, left_zero=4, right_zero=5, is_product=True),
    ("", "QLinearMatMul"): Operator(_matmul, right=3, left_zero=2, right_zero=5, is_product=True),
    (MICROSOFT, "DynamicQuantizeMatMul"): Operator(_matmul, right_zero=3, is_product=True, quantizes=True),
}
