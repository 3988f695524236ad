"""The nodes of an ONNX model that contract, and the layers that they make."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from jax.tree_util import DictKey

from phantom_jax.tracing.contractions import NotALayerError
from phantom_jax.tracing.images import Batch, Images
from phantom_jax.tracing.onnx.operators import (
    MICROSOFT,
    VALUE_FREE,
    Operator,
    domain_of,
    graphs_of,
    node_name,
    operator_of,
)
from phantom_jax.tracing.traced import Findings

# What contracts activations with each other, or holds its weights in attributes.
_CONTRACTING = (
    *("Attention", "LinearAttention", "CausalConvWithState", "DFT", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"),
    *("STFT", "LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor"),
    *("MultiHeadAttention", "GroupQueryAttention", "QAttention", "PackedAttention", "SparseAttention"),
)
# What works element by element, reduces, normalizes or moves data, whatever constants it reads.
# fmt: off
_HARMLESS = frozenset((
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "ArrayFeatureExtractor", "Asin", "Asinh", "Atan",
    "Atanh", "AveragePool", "BatchNormalization", "Bernoulli", "Binarizer", "BitCast", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im",
    "Compress", "Concat", "ConcatFromSequence", "Constant", "ConstantOfShape", "Cos", "Cosh", "CumProd", "CumSum",
    "DepthToSpace", "DequantizeLinear", "Det", "Div", "Dropout", "DynamicQuantizeLinear", "Elu", "Equal", "Erf",
    "Exp", "Expand", "EyeLike", "FeatureVectorizer", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Gelu", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "Imputer", "InstanceNormalization",
    "IsInf", "IsNaN", "LRN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "LpNormalization", "LpPool", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean", "MeanVarianceNormalization",
    "Min", "Mish", "Mod", "Mul", "Multinomial", "Neg", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "NonZero",
    "Normalizer", "Not", "OneHot", "OneHotEncoder", "Optional", "OptionalGetElement", "OptionalHasElement", "Or",
    "PRelu", "Pad", "Pow", "QuantizeLinear", "RMSNormalization", "RandomNormalLike", "RandomUniformLike", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign",
    "RotaryEmbedding", "Round", "Scaler", "Scatter", "ScatterElements", "ScatterND", "Selu", "SequenceAt",
    "SequenceConstruct", "SequenceErase", "SequenceInsert", "SequenceLength", "Shape", "Shrink", "Sigmoid", "Sign",
    "Sin", "Sinh", "Size", "Slice", "Softmax", "SoftmaxCrossEntropyLoss", "Softplus", "Softsign", "SpaceToDepth",
    "Split", "SplitToSequence", "Sqrt", "Squeeze", "Sub", "Sum", "SwiGLU", "Swish", "Tan", "Tanh", "TensorScatter",
    "ThresholdedRelu", "Tile", "TopK", "Transpose", "TreeEnsemble", "TreeEnsembleClassifier",
    "TreeEnsembleRegressor", "Trilu", "Unique", "Unsqueeze", "Upsample", "Where", "Xor",
))
_HARMLESS_OF_MICROSOFT = frozenset((
    "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "DequantizeLinear",
    "EmbedLayerNormalization", "FastGelu", "Gelu", "Inverse", "Pad", "QLinearAdd", "QLinearAveragePool",
    "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid",
    "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "QuickGelu", "SimplifiedLayerNormalization",
    "SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Trilu", "Unique",
))
# fmt: on
# What leaves the elements of its first input as they are, but for their order, their type or a scale.
_PASSING = ("Cast", "DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


class Nodes:
    """The nodes of a model that contract, or may.

    Args:
        model: The model, in which branches are taken.
        fed: Names of the inputs that the caller gave; what initializes others is constant.
    """

    def __init__(self, model: onnx.ModelProto, fed: Sequence[str]) -> None:
        self.constants = _constants(model.graph, fed)
        self._nodes = [node for node in model.graph.node if operator_of(node) or not _is_harmless(node)]
        ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
        self._inner = [
            (outer, node) for outer in model.graph.node for graph in graphs_of(outer) for node in _within(graph, ranks)
        ]

    @property
    def operands(self) -> Iterator[str]:
        """Names of the tensors whose values make masks."""
        for node in self._nodes:
            operator = operator_of(node)
            if operator:
                places = (operator.left, operator.right, operator.left_zero, operator.right_zero)
                yield from (
                    node.input[at] for at in places if at is not None and at < len(node.input) and node.input[at]
                )

    @property
    def others(self) -> Iterator[str]:
        """Names of the constants that other nodes read, whose shapes say whether they may be weights."""
        for node in self._nodes:
            if not operator_of(node):
                yield from (name for name in node.input if name in self.constants)

    def layers(
        self,
        values: Mapping[str, np.ndarray],
        shapes: Mapping[str, Sequence[int]],
        images: Mapping[str, Images | None],
        batch: Batch,
    ) -> Findings:
        """Returns the layers of the nodes.

        Args:
            values: Of `operands`.
            shapes: Of `others`.
            images: Where operands hold them.
            batch: What the caller says of that.

        Raises:
            ValueError: An operand holds NaN, or lacks the axis that `batch` gives for it.
        """
        findings = Findings()
        for node in self._nodes:
            operator = operator_of(node)
            known = {name: shapes[name] for name in node.input if name in shapes and name in self.constants}
            if operator is None and not _contracts(node) and all(len(shape) < 2 for shape in known.values()):
                continue
            name = findings.unique(node_name(node))
            try:
                if operator is None:
                    raise NotALayerError(f"{_full_name(node)} is not read")
                self._add(findings, node, operator, values, images, batch, name)
            except NotALayerError as error:
                read = [values[name].shape for name in _operands(node, operator)] if operator else known.values()
                findings.skip(node.op_type, name, list(read), str(error))
        for outer, node in self._inner:
            body = f"it is in the body of {node_name(outer)} ({outer.op_type})"
            findings.skip(node.op_type, findings.unique(node_name(node)), (), body)
        return findings

    def _add(
        self,
        findings: Findings,
        node: onnx.NodeProto,
        operator: Operator,
        values: Mapping[str, np.ndarray],
        images: Mapping[str, Images | None],
        batch: Batch,
        name: str,
    ) -> None:
        left, right = _operands(node, operator)
        weights_first = operator.is_product and left in self.constants
        active, weights = (right, left) if weights_first else (left, right)
        if active in self.constants:
            raise NotALayerError("both operands are constants; it has no activations")
        if weights not in self.constants:
            raise NotALayerError("no operand of it that could be weights is a constant")
        where = batch.of_layer(name, values[active].shape) or images.get(active)
        layer = operator.layer(node, values, name, where, weights_first)
        source = self.constants[weights]
        findings.add(layer, (DictKey(source),) if source else None, is_guess=where is None)


def _operands(node: onnx.NodeProto, operator: Operator) -> tuple[str, str]:
    return node.input[operator.left], node.input[operator.right]


def _full_name(node: onnx.NodeProto) -> str:
    domain = domain_of(node)
    return f"{domain}.{node.op_type}" if domain else node.op_type


def _contracts(node: onnx.NodeProto) -> bool:
    return operator_of(node) is not None or node.op_type in _CONTRACTING


def _is_harmless(node: onnx.NodeProto) -> bool:
    """Whether no constant that a node reads can be weights."""
    known = _HARMLESS_OF_MICROSOFT if node.domain == MICROSOFT else _HARMLESS
    is_known = domain_of(node) in ("", "ai.onnx.ml", "ai.onnx.preview.training", MICROSOFT) and node.op_type in known
    return is_known or any(True for _ in graphs_of(node))  # bodies are looked into


def _within(graph: onnx.GraphProto, ranks: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
    """Yields the nodes of a body that contract, or read an initializer of two axes or more in a way not known."""
    ranks = {**ranks, **{tensor.name: len(tensor.dims) for tensor in graph.initializer}}
    for node in graph.node:
        if _contracts(node) or (not _is_harmless(node) and any(ranks.get(name, 0) > 1 for name in node.input)):
            yield node
        for inner in graphs_of(node):
            yield from _within(inner, ranks)


def _constants(graph: onnx.GraphProto, fed: Sequence[str]) -> dict[str, str | None]:
    """Returns the tensors that are the same for all inputs; each with the one constant that it is, in another form."""
    constants: dict[str, str | None] = {tensor.name: tensor.name for tensor in graph.initializer}
    for name in fed:
        constants.pop(name, None)
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type == "Constant":
            constants[node.output[0]] = node.output[0]
        elif node.op_type in VALUE_FREE:
            constants[node.output[0]] = None
        elif all(name in constants for name in inputs) and not any(True for _ in graphs_of(node)):
            source = constants[inputs[0]] if inputs and node.op_type in _PASSING else None
            constants |= dict.fromkeys(node.output, source)
    return constants
