"""The nodes of an ONNX model that contract, and the layers that they make."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from jax.tree_util import DictKey

from phantom_jax.layer import Layer
from phantom_jax.tracing.contractions import NotALayerError, convolution, product
from phantom_jax.tracing.traced import Findings, to_mask

# What else contracts, in ONNX and in onnxruntime's own operators.
_UNREAD = (
    *("ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "QGemm", "MatMulNBits"),
    *("FusedConv", "NhwcFusedConv", "FusedGemm", "FusedMatMul", "GemmFastGelu", "DeformConv", "Einsum"),
    *("Attention", "QAttention", "MultiHeadAttention", "GroupQueryAttention", "LSTM", "GRU", "RNN"),
)
# What leaves the elements of its first input as they are, but for their order, their type or a scale.
_PASSING = ("Cast", "DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


class Nodes:
    """The nodes of a model that contract."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = [node for node in model.graph.node if _contracts(node)]
        self._inner = [
            (node, inner) for node in model.graph.node for graph in _graphs(node) for inner in _contracting(graph)
        ]
        self._constants = _constants(model.graph)

    @property
    def operands(self) -> Iterator[str]:
        """Names of the tensors that the nodes read as operands."""
        return (name for node in self._nodes for name in node.input[:2] if name)

    def layers(self, values: Mapping[str, np.ndarray]) -> Findings:
        """Returns the layers of the nodes, given the values of their operands.

        Raises:
            ValueError: One holds NaN.
        """
        findings = Findings()
        for node in self._nodes:
            name = findings.unique(node.name or node.output[0])
            operands = [values[operand] for operand in node.input[:2] if operand]
            try:
                layer = self._layer(node, operands, name)
            except NotALayerError as error:
                findings.skip(node.op_type, name, [np.shape(operand) for operand in operands], str(error))
            else:
                source = self._constants[node.input[1]]
                findings.add(layer, (DictKey(source),) if source else None)
        for outer, node in self._inner:
            name = findings.unique(node.name or node.output[0])
            body = f"it is in the body of {outer.name or outer.output[0]} ({outer.op_type})"
            findings.skip(node.op_type, name, (), body)
        return findings

    def _layer(self, node: onnx.NodeProto, operands: Sequence[np.ndarray], name: str) -> Layer:
        if node.op_type not in _LAYERS or node.domain not in ("", "ai.onnx"):
            raise NotALayerError(f"{node.op_type} is not read")
        if node.input[1] not in self._constants:
            raise NotALayerError("its right operand is no constant, so it has no weights")
        activations = to_mask("activations", operands[0], name)
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        return _LAYERS[node.op_type](to_mask("weights", operands[1], name), activations, attributes, name)


def _contracts(node: onnx.NodeProto) -> bool:
    return node.op_type in _LAYERS or node.op_type in _UNREAD


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _contracting(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        if _contracts(node):
            yield node
        for inner in _graphs(node):
            yield from _contracting(inner)


def _constants(graph: onnx.GraphProto) -> dict[str, str | None]:
    """Returns the tensors that are the same for all inputs; each with the one constant that it is, in another form."""
    constants: dict[str, str | None] = {initializer.name: initializer.name for initializer in graph.initializer}
    constants |= {sparse.values.name: sparse.values.name for sparse in graph.sparse_initializer}
    for given in graph.input:  # the user may set what has a default
        constants.pop(given.name, None)
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type == "Constant":
            constants[node.output[0]] = node.output[0]
        elif inputs and all(name in constants for name in inputs) and not any(True for _ in _graphs(node)):
            source = constants[inputs[0]] if node.op_type in _PASSING else None
            constants |= dict.fromkeys(node.output, source)
    return constants


def _geometry(attributes: Mapping[str, Any], spatial: Sequence[int], kernel: Sequence[int]) -> dict[str, Any]:
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


def _conv(weights: np.ndarray, activations: np.ndarray, attributes: Mapping[str, Any], name: str) -> Layer:
    geometry = _geometry(attributes, activations.shape[2:], weights.shape[2:])
    return convolution(
        np.ascontiguousarray(weights.transpose(*range(2, weights.ndim), 1, 0)),
        np.moveaxis(activations, 1, -1),
        name,
        **geometry,
        input_dilation=[1] * len(geometry["strides"]),
        feature_group_count=attributes.get("group", 1),
    )


def _conv_transpose(weights: np.ndarray, activations: np.ndarray, attributes: Mapping[str, Any], name: str) -> Layer:
    """A convolution of the dilated input with the mirrored kernel."""
    if "output_shape" in attributes or attributes.get("auto_pad", b"NOTSET").startswith(b"SAME"):
        raise NotALayerError("its padding follows from output_shape or auto_pad, which is not read")
    groups, kernel = attributes.get("group", 1), weights.shape[2:]
    rank = len(kernel)
    geometry = _geometry(attributes, activations.shape[2:], kernel)
    extra = attributes.get("output_padding", [0] * rank)
    margins = [(size - 1) * dilation for size, dilation in zip(kernel, geometry["kernel_dilation"], strict=True)]
    padding = [
        (margin - low, margin - high + more)
        for margin, (low, high), more in zip(margins, geometry["padding"], extra, strict=True)
    ]
    # [Cin, K/groups, *kernel] to [*kernel, Cin/groups, K], where filters of a group are neighbors.
    grouped = np.flip(weights, tuple(range(2, weights.ndim))).reshape(groups, -1, *weights.shape[1:])
    mirrored = grouped.transpose(*range(3, rank + 3), 1, 0, 2).reshape(*kernel, grouped.shape[1], -1)
    return convolution(
        mirrored,
        np.moveaxis(activations, 1, -1),
        name,
        strides=[1] * rank,
        padding=padding,
        input_dilation=geometry["strides"],
        kernel_dilation=geometry["kernel_dilation"],
        feature_group_count=groups,
    )


def _gemm(weights: np.ndarray, activations: np.ndarray, attributes: Mapping[str, Any], name: str) -> Layer:
    weights = weights.T if attributes.get("transB", 0) else weights
    return product(weights, activations.T if attributes.get("transA", 0) else activations, name)


def _matmul(weights: np.ndarray, activations: np.ndarray, attributes: Mapping[str, Any], name: str) -> Layer:
    del attributes
    while weights.ndim > 2 and len(weights) == 1:
        weights = weights[0]
    if weights.ndim > 2:
        raise NotALayerError("its weights have batch axes; a layer has one set of weights for all images")
    return product(weights[:, None] if weights.ndim == 1 else weights, activations, name)


_LAYERS: Mapping[str, Callable[[np.ndarray, np.ndarray, Mapping[str, Any], str], Layer]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
