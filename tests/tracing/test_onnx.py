"""ONNX models: what their nodes compute is what the layers compute."""

import importlib.util
import pathlib
import sys
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import DictKey
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_sample_image

from phantom_jax import Layer, Phantom2D, Traced, from_onnx, simulate
from phantom_jax.tracing import onnx as exported
from phantom_jax.tracing.images import Batch
from phantom_jax.tracing.onnx.graph import load
from phantom_jax.tracing.onnx.nodes import Nodes
from tests import cases

RNG = np.random.default_rng(0)
KERNEL = RNG.integers(0, 2, (4, 3, 3, 3)).astype(np.float32)
IMAGES = RNG.integers(0, 2, (2, 3, 8, 6)).astype(np.float32)


def made(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: dict[str, Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    """Makes a model; by default its input is `x`, floats of any shape."""
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (inputs or {"x": None}).items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", infos, results, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def quietly(model: Any, inputs: Any, **options: Any) -> Traced:
    """Traces without the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return from_onnx(model, inputs, **options)


def convolved(layer: Layer, weights: Any, activations: Any) -> np.ndarray:
    """Convolves values in the geometry of a layer, channels first."""
    return np.moveaxis(cases.convolve(layer, weights, activations), -1, 1)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[str, np.ndarray, np.ndarray, dict[str, Any]]:
    """Draws an operator, operands of zeros and ones, and attributes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    operator = draw(st.sampled_from(["Conv", "Conv", "ConvTranspose"]))
    rank = draw(st.integers(1, 3 if operator == "Conv" else 2))
    groups, per_group, multiplier = (draw(st.integers(1, 3)) for _ in range(3))
    kernel, strides, dilations = ([draw(st.integers(1, most)) for _ in range(rank)] for most in (3, 3, 2))
    auto = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto.startswith("SAME") and operator == "Conv":
        dilations = [1] * rank  # as onnxruntime wants it
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": groups, "auto_pad": auto}
    if auto == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    if operator == "ConvTranspose":
        attributes["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in strides]
        shape = (groups * per_group, multiplier, *kernel)
    else:
        shape = (groups * multiplier, per_group, *kernel)
    spatial = [draw(st.integers(5, 8)) for _ in range(rank)]
    if operator == "ConvTranspose" and draw(st.booleans()):
        extents = zip(spatial, strides, kernel, dilations, attributes["output_padding"], strict=True)
        whole = [(size - 1) * stride + (extent - 1) * by + 1 + more for size, stride, extent, by, more in extents]
        attributes["output_shape"] = [max(size - draw(st.integers(0, 3)), 1) for size in whole]
    images = rng.random((draw(st.integers(1, 2)), groups * per_group, *spatial)) < 0.6
    return operator, images, rng.random(shape) < 0.6, attributes


@given(convolutions())
def test_a_convolution_is_the_layer_that_it_was(drawn: tuple[str, Any, Any, dict[str, Any]]) -> None:
    operator, images, kernel, attributes = drawn
    model = made([helper.make_node(operator, ["x", "w"], ["y"], **attributes)], {"w": kernel.astype(np.float32)})
    (layer,) = traced = from_onnx(model, images)
    np.testing.assert_array_equal(convolved(layer, layer.weights, layer.activations), traced.outputs["y"])
    assert layer.weights.dtype == layer.activations.dtype == bool
    assert traced.sources == ((DictKey("w"),),)


@pytest.mark.parametrize(
    ("node", "left", "right", "shape"),
    [
        (helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5), (4, 6), (6, 5), (4, 6)),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1, transB=1), (6, 4), (5, 6), (4, 6)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (4, 6), (6, 5), (4, 6)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (4, 3, 2, 6), (6, 5), (4, 6, 6)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (4, 3, 6), (1, 6, 5), (4, 3, 6)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (6,), (6, 5), (1, 6)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (4, 6), (6,), (4, 6)),
    ],
)
def test_a_product_is_the_layer_that_it_was(node: onnx.NodeProto, left: Any, right: Any, shape: Any) -> None:
    values, weights = (RNG.integers(0, 2, size).astype(np.float32) for size in (left, right))
    (layer,) = traced = from_onnx(made([node], {"w": weights}), values)
    counts = layer.activations.astype(int) @ layer.weights.astype(int)
    scale = 0.5 if node.attribute and node.attribute[0].name == "alpha" else 1
    np.testing.assert_array_equal(counts.ravel() * scale, traced.outputs["y"].ravel())
    assert layer.activations.shape == shape


def test_weights_of_many_kinds_and_what_is_no_weight() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["inner"])], "body", [], [onnx.ValueInfoProto(name="inner")]
    )
    square = np.array([[0, 1], [2, 0]], np.float32)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(square)),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"]),
        helper.make_node("Add", ["w", "w"], ["doubled"]),
        helper.make_node("Add", ["x", "w"], ["added"]),
        helper.make_node("MatMul", ["x", "c"], ["constant"], name="fc"),
        helper.make_node("MatMul", ["constant", "t"], ["dequantized"], name="head"),
        helper.make_node("MatMul", ["dequantized", "doubled"], ["h"]),
        helper.make_node("MatMul", ["h", "added"], ["mixed"], name="scores"),
        helper.make_node("MatMul", ["w", "h"], ["reversed"]),
        helper.make_node("MatMul", ["h", "stack"], ["batched"], name="experts"),
        helper.make_node("Einsum", ["h", "w"], ["summed"], equation="bi,ij->bj"),
        helper.make_node("If", ["yes"], ["chosen"], name="gate", then_branch=body, else_branch=body),
        helper.make_node("ConvTranspose", ["image", "kernel"], ["up"], auto_pad="SAME_UPPER", strides=[2]),
        helper.make_node("Sum", ["mixed", "reversed", "summed", "chosen"], ["y"]),
    ]  # fmt: skip
    constants = {
        "q": np.array([[3, 7], [3, 3]], np.uint8),
        "scale": np.float32(0.5),
        "zero": np.array(3, np.uint8),
        "w": square,
        "yes": np.array(True),
        "stack": np.ones((2, 2, 2), np.float32),
        "image": np.ones((1, 1, 4), np.float32),
        "kernel": np.ones((1, 1, 2), np.float32),
    }
    model = made(nodes, constants, outputs=("y", "batched", "up"))
    before = model.SerializeToString()
    with pytest.warns(UserWarning, match="what makes no layer is left out") as warned:
        traced = from_onnx(model, np.eye(2))
    assert warned[0].filename == __file__
    assert model.SerializeToString() == before
    assert [layer.name for layer in traced] == ["fc", "head", "h", "reversed", "inner"]
    assert traced.sources == ((DictKey("c"),), (DictKey("q"),), None, (DictKey("w"),), (DictKey("w"),))
    np.testing.assert_array_equal(traced[3].weights, square.T != 0)
    np.testing.assert_array_equal(traced[1].weights, [[False, False], [True, False]])
    reasons = {skipped.name: (skipped.primitive, skipped.shapes, skipped.reason) for skipped in traced.skipped}
    assert reasons == {
        "scores": ("MatMul", ((2, 2), (2, 2)), "no operand of it that could be weights is a constant"),
        "experts": (
            "MatMul",
            ((2, 2), (2, 2, 2)),
            "its weights have batch axes; a layer has one set of weights for all images",
        ),
        "summed": ("Einsum", ((2, 2),), "Einsum is not read"),
        "up": ("ConvTranspose", ((1, 1, 4), (1, 1, 2)), "both operands are constants; it has no activations"),
    }  # fmt: skip
    assert set(traced.outputs) == {"y", "batched", "up"}


def test_initializers_that_are_inputs_too_are_constants_unless_they_are_fed() -> None:
    model = made(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.eye(4, 3, dtype=np.float32)},
        {"x": [1, 4], "w": [4, 3]},
    )
    (layer,) = from_onnx(model, np.ones((1, 4)))
    assert (layer.weights.shape, layer.weights.mean()) == ((4, 3), 0.25)
    fed = quietly(model, {"x": np.ones((1, 4)), "w": np.ones((4, 3))})
    assert not len(fed)
    assert fed.skipped[0].reason == "no operand of it that could be weights is a constant"


SPARSE_SHAPES = [((2, 4), (4, 3), "MatMul"), ((1, 3, 8, 6), (4, 3, 3, 3), "Conv")]


@pytest.mark.parametrize(("shape", "weights_shape", "operator"), SPARSE_SHAPES)
@pytest.mark.parametrize("kind", ["linear", "by axis", "constant"])
def test_sparse_constants_make_layers(shape: Any, weights_shape: Any, operator: str, kind: str) -> None:
    dense = (RNG.random(weights_shape) * (RNG.random(weights_shape) < 0.3)).astype(np.float32)
    places = np.argwhere(dense) if kind == "by axis" else np.flatnonzero(dense)
    tensor = helper.make_sparse_tensor(
        numpy_helper.from_array(dense[dense != 0], "w"), numpy_helper.from_array(places.astype(np.int64)), weights_shape
    )
    nodes = [helper.make_node(operator, ["x", "w"], ["y"])]
    if kind == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))
    model = made(nodes, {})
    if kind != "constant":
        model.graph.sparse_initializer.append(tensor)
    (layer,) = traced = from_onnx(model, np.ones(shape))
    np.testing.assert_array_equal(layer.weights, (dense.transpose(2, 3, 1, 0) if dense.ndim > 2 else dense) != 0)
    assert traced.sources == ((DictKey("w"),),)


UNREAD = [
    ("LinearRegressor", "ai.onnx.ml", ["x"], {"coefficients": [1.0, 0, 0, 2], "targets": 1}),
    ("LinearClassifier", "ai.onnx.ml", ["x"], {"coefficients": [1.0, 0, 0, 2] * 2, "classlabels_ints": [0, 1]}),
    ("DynamicQuantizeLSTM", "com.microsoft", ["x", "w", "w"], {"hidden_size": 4}),
    ("MoE", "com.microsoft", ["x", "x", "w"], {"k": 1}),
    ("MatMulNBits", "com.microsoft", ["x", "w", "v"], {"K": 4, "N": 4, "bits": 4, "block_size": 16}),
    ("Mystery", "my.domain", ["x", "w"], {}),
    ("LSTM", "", ["x", "v"], {}),
    ("DFT", "", ["x"], {}),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "domain", "inputs", "attributes"), UNREAD)
def test_all_that_reads_a_matrix_is_reported(operator: str, domain: str, inputs: Any, attributes: Any) -> None:
    """These nodes are not run: most want inputs that are beside the point."""
    node = helper.make_node(operator, inputs, ["y"], domain=domain, **attributes)
    harmless = helper.make_node("Add", ["x", "w"], ["z"])
    beside = helper.make_node("Mystery", ["x", "v"], ["u"], domain="my.domain")
    constants = {"w": np.eye(4, dtype=np.float32), "v": np.ones(4, np.float32)}
    found = Nodes(made([node, harmless, beside], constants), ["x"])
    shapes = {name: constants[name].shape for name in found.others}
    (skipped,) = found.layers({}, shapes, {}, Batch(None)).skipped
    full = f"{domain}.{operator}" if domain else operator
    assert (skipped.primitive, skipped.reason) == (operator, f"{full} is not read")


def quantized(shape: Any, zero: int) -> np.ndarray:
    values = RNG.integers(0, 255, shape).astype(np.uint8)
    return np.where(RNG.random(shape) < 0.5, np.uint8(zero), values)


def int8(values: Any) -> np.ndarray:
    return np.asarray(values).astype(np.int8)


X, SCALE = quantized((2, 4), 3), np.float32(0.1)
W = int8(RNG.integers(-3, 3, (4, 5)))
IMAGE, KERNEL8 = quantized((2, 3, 5, 5), 7), int8(RNG.integers(-3, 3, (4, 3, 3, 3)))
FLOATS = RNG.normal(size=(2, 4)).astype(np.float32) * (RNG.random((2, 4)) < 0.7)
FLOATS[0, 0], FLOATS[1, 0] = 100, 1e-3  # the second rounds to zero
QUANTIZED = {
    "QLinearConv": ("", ["x", "s", "zx", "w", "s", "zw", "s", "zx"], IMAGE, KERNEL8, {"zw": int8([1, 0, -1, 2])}),
    "QLinearConv by one": ("", ["x", "s", "zx", "w", "s", "zw", "s", "zx"], IMAGE, KERNEL8, {"zw": int8(1)}),
    "ConvInteger": ("", ["x", "w", "zx"], IMAGE, KERNEL8.view(np.uint8), {}),
    "QLinearMatMul": ("", ["x", "s", "zx", "w", "s", "zw", "s", "zx"], X, W, {"zw": int8(2)}),
    "QLinearMatMul by column": (
        "", ["x", "s", "zx", "w", "sw", "zw", "s", "zx"], X, W,
        {"zw": int8([0, 1, 2, -1, 0]), "sw": np.full(5, SCALE)},
    ),
    "MatMulInteger": ("", ["x", "w", "zx", "zw"], X, W, {"zw": int8(-2)}),
    "MatMulIntegerToFloat": ("com.microsoft", ["x", "w", "s", "s", "zx", "zw"], X, W, {"zw": int8(-2)}),
    "QGemm": ("com.microsoft", ["x", "s", "zx", "w", "s", "zw", "", "s", "zx"], X, W, {"zw": int8(1)}),
    "DynamicQuantizeMatMul": ("com.microsoft", ["x", "w", "s", "zw"], FLOATS, W, {"zw": int8(1)}),
}  # fmt: skip


@pytest.mark.parametrize("operator", QUANTIZED)
def test_quantized_operators_make_layers_where_zero_is_the_zero_point(operator: str) -> None:
    domain, inputs, x, w, more = QUANTIZED[operator]
    is_conv, is_float = w.ndim > 2, x.dtype == np.float32
    zero = np.uint8(7 if is_conv else 3)
    constants = {
        "s": np.array(SCALE),
        "zx": np.array(zero),
        "w": w,
        **{name: np.array(value) for name, value in more.items()},
    }
    model = made([helper.make_node(operator.split()[0], inputs, ["y"], domain=domain)], constants)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT if is_float else TensorProto.UINT8
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (layer,) = traced = from_onnx(model, x)
    active = np.rint(x / np.float32((x.max() - min(x.min(), 0)) / 255)) != 0 if is_float else x != zero
    point = more.get("zw", np.int8(0))
    weights = w != (point.reshape(-1, 1, 1, 1) if is_conv and point.ndim else point)
    np.testing.assert_array_equal(layer.activations, np.moveaxis(active, 1, -1) if is_conv else active)
    np.testing.assert_array_equal(layer.weights, weights.transpose(2, 3, 1, 0) if is_conv else weights)
    assert traced.sources == ((DictKey("w"),),)
    if is_float:
        assert not layer.activations[1, 0]
        assert layer.activations[0, 0]


def test_a_dynamically_quantized_product_is_read() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["y"]),
    ]
    (layer,) = from_onnx(made(nodes, {"w": W}), FLOATS)
    np.testing.assert_array_equal(
        layer.activations, np.rint(FLOATS / np.float32((FLOATS.max() - FLOATS.min()) / 255)) != 0
    )
    np.testing.assert_array_equal(layer.weights, W != 0)


@pytest.mark.parametrize(
    ("operator", "attributes", "left", "right"),
    [
        ("FusedConv", {"activation": "Relu"}, (2, 3, 8, 6), (4, 3, 3, 3)),
        ("FusedMatMul", {"transA": 1, "transB": 1}, (2, 6, 4), (5, 6)),
        ("TransposeMatMul", {"transB": 1, "alpha": 2.0}, (4, 6), (5, 6)),
    ],
)
def test_fused_operators_make_layers(operator: str, attributes: Any, left: Any, right: Any) -> None:
    values, weights = (RNG.integers(0, 2, size).astype(np.float32) for size in (left, right))
    model = made([helper.make_node(operator, ["x", "w"], ["y"], domain="com.microsoft", **attributes)], {"w": weights})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (layer,) = traced = from_onnx(model, values)
    if layer.is_conv:
        counts = convolved(layer, layer.weights, layer.activations)
    else:
        counts = layer.activations.astype(int) @ layer.weights.astype(int) * attributes.get("alpha", 1)
    np.testing.assert_array_equal(counts.reshape(traced.outputs["y"].shape), traced.outputs["y"])


def branch(scale: float) -> onnx.GraphProto:
    weights = numpy_helper.from_array(np.diag([scale, 0]).astype(np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["inner"]),
        helper.make_node("If", ["yes"], ["h"], then_branch=leaf("inner"), else_branch=leaf("w")),
    ]
    return helper.make_graph(nodes, "branch", [], [onnx.ValueInfoProto(name="h")], [weights])


def leaf(name: str) -> onnx.GraphProto:
    """A branch in a branch, which reads what is outside of both."""
    node = helper.make_node("MatMul", [name, "v"], ["deep"], name=f"of {name}")
    return helper.make_graph([node], "leaf", [], [onnx.ValueInfoProto(name="deep")])


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_the_branch_of_an_if_that_runs_is_taken(chosen: bool, constant: bool) -> None:
    """Both branches have names in common, with each other and with the graph around."""
    constants = {"v": np.array([[1, 2], [0, 0]], np.float32), "yes": np.array(True), "w": np.ones((2, 2), np.float32)}
    inputs: dict[str, Any] = {"x": [2, 2]}
    (constants if constant else inputs)["on"] = np.array(chosen) if constant else []
    node = helper.make_node("If", ["on"], ["y"], name="gate", then_branch=branch(1), else_branch=branch(0))
    model = made([node, helper.make_node("MatMul", ["y", "w"], ["z"])], constants, inputs, ("y", "z"))
    if not constant:
        model.graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL
    feeds = {"x": np.eye(2), **({} if constant else {"on": np.array(chosen)})}
    traced = from_onnx(model, feeds)
    assert [layer.name for layer in traced] == ["inner", "of inner", "z"]
    assert [int(layer.weights.sum()) for layer in traced] == [chosen, 2, 4]
    assert traced[1].activations.sum() == chosen
    np.testing.assert_array_equal(traced.outputs["y"], np.diag([float(chosen), 0]) @ constants["v"])
    assert not traced.skipped


def test_bodies_of_loops_are_reported() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["out"]), helper.make_node("Identity", ["c"], ["more"]),
         helper.make_node("Add", ["h", "w"], ["sum"])],
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in
         (("i", TensorProto.INT64), ("c", TensorProto.BOOL))]
        + [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)],
        [onnx.ValueInfoProto(name=name) for name in ("more", "out")],
    )  # fmt: skip
    node = helper.make_node("Loop", ["n", ""], ["y"], name="loop", body=body)
    model = made([node], {"n": np.array(2), "w": np.eye(2, dtype=np.float32)}, {"x": [2, 2]})
    node.input.append("x")
    model.graph.node[0].CopyFrom(node)
    (skipped,) = quietly(model, np.eye(2)).skipped
    assert (skipped.name, skipped.reason) == ("out", "it is in the body of loop (Loop)")


TIME_FIRST = [
    helper.make_node("Conv", ["x", "k"], ["c"]),
    helper.make_node("Transpose", ["c"], ["t"], perm=[2, 0, 1, 3]),
    helper.make_node("Reshape", ["t", "shape"], ["r"]),
    helper.make_node("MatMul", ["r", "w"], ["y"], name="head"),
]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_images_are_followed_to_a_head_where_time_comes_first(count: int) -> None:
    constants = {
        "k": np.ones((4, 3, 3, 3), np.float32),
        "shape": np.array([3, count, 12]),
        "w": np.ones((12, 5), np.float32),
    }
    images = (RNG.random((count, 3, 5, 5)) < 0.2).astype(np.float32) if count > 1 else np.ones((1, 3, 5, 5))
    traced = from_onnx(made(TIME_FIRST, constants), images)
    assert traced[1].activations.shape == (count, 3, 12)
    if count == 1:
        assert simulate(traced, Phantom2D()).cycles == [15]  # 9 of the convolution, 6 of the head
    for index in range(count):
        alone = from_onnx(made(TIME_FIRST, constants | {"shape": np.array([3, 1, 12])}), images[index : index + 1])
        np.testing.assert_array_equal(traced[1].activations[index], alone[1].activations[0])


def recurrent(layout: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("LSTM", ["x", "wi", "wr"], ["all", "last"], hidden_size=2, layout=layout),
        helper.make_node("Squeeze", ["last", "axis"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="head"),
    ]


def test_images_are_followed_through_a_recurrent_layer() -> None:
    constants = {
        "wi": np.ones((1, 8, 3), np.float32),
        "wr": np.ones((1, 8, 2), np.float32),
        "axis": np.array([0]),
        "w": np.ones((2, 5), np.float32),
    }
    steps = RNG.random((4, 3, 3))
    traced = quietly(made(recurrent(0), constants), steps, batch=1)
    assert [layer.batch for layer in traced] == [3]
    assert [skipped.primitive for skipped in traced.skipped] == ["LSTM"]
    model = made([helper.make_node("MatMul", ["x", "w"], ["y"], name="head")], {"w": np.ones((3, 5), np.float32)})
    for batch in (1, {"x": 1}, {"head": 1}):
        assert quietly(model, steps, batch=batch)[0].activations.shape == (3, 4, 3)
    assert quietly(model, steps)[0].activations.shape == (4, 3, 3)
    with pytest.raises(ValueError, match="batch must name inputs or layers, got 'tail'; there are x, head"):
        quietly(model, steps, batch={"tail": 1})


MOVES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "windows": (
        [
            helper.make_node("Reshape", ["x", "parts"], ["a"]),
            helper.make_node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2, 4, 5]),
            helper.make_node("Reshape", ["b", "tokens"], ["h"]),
        ],
        {"parts": np.array([-1, 2, 2, 2, 3, 2]), "tokens": np.array([-1, 6, 2])},
    ),
    "rows": ([helper.make_node("Reshape", ["x", "rows"], ["h"])], {"rows": np.array([-1, 2])}),
    "flatten": ([helper.make_node("Flatten", ["x"], ["h"], axis=3)], {}),
    "last first": (
        [
            helper.make_node("Transpose", ["x"], ["a"], perm=[1, 2, 0, 3]),
            helper.make_node("Add", ["a", "bias"], ["b"]),
            helper.make_node("Gather", ["b", "index"], ["h"], axis=0),
        ],
        {"bias": np.ones((6, 1, 2), np.float32), "index": np.array(1)},
    ),
    "mean": (
        [
            helper.make_node("Transpose", ["x"], ["a"], perm=[1, 0, 2, 3]),
            helper.make_node("ReduceMean", ["a"], ["h"], axes=[0], keepdims=0),
        ],
        {},
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_images_are_followed_through_what_moves_them(move: str) -> None:
    nodes, constants = MOVES[move]
    weights = {"w": np.ones((2, 3), np.float32), **constants}
    model = made([*nodes, helper.make_node("MatMul", ["h", "w"], ["y"])], weights)
    images = (RNG.random((3, 4, 6, 2)) < 0.5).astype(np.float32)
    (layer,) = from_onnx(model, images)
    assert layer.batch == 3
    for index in range(3):
        (alone,) = from_onnx(model, images[index : index + 1])
        np.testing.assert_array_equal(layer.activations[index], alone.activations[0])


@st.composite
def graphs(draw: st.DrawFn) -> tuple[onnx.ModelProto, int, bool]:
    """Draws a model of one contraction with its weights behind other nodes; how many are ones; whether it convolves."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    operator = draw(st.sampled_from(["Conv", "ConvTranspose", "Gemm", "MatMul", "FusedMatMul", "Mystery"]))
    shape = (4, 4, 3, 3) if operator.startswith("Conv") else (4, 4)
    weights = (rng.random(shape) < 0.5).astype(np.float32)
    constants: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    kind = draw(st.sampled_from(["initializer", "input", "sparse", "constant", "quantized"]))
    name = "w"
    if kind == "constant":
        nodes.append(helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights)))
    elif kind == "quantized":
        constants |= {"w": weights.astype(np.uint8), "s": np.array(0.5, np.float32)}
        nodes.append(helper.make_node("DequantizeLinear", ["w", "s"], ["dq"]))
        name = "dq"
    elif kind != "sparse":
        constants["w"] = weights
    for step in range(draw(st.integers(0, 3))):
        passing = draw(st.sampled_from(["Identity", "Transpose", "Cast"]))
        attributes = {"Cast": {"to": TensorProto.FLOAT}, "Transpose": {"perm": [1, 0, *range(2, len(shape))]}}
        nodes.append(helper.make_node(passing, [name], [f"w{step}"], **attributes.get(passing, {})))
        name = f"w{step}"
    domain = {"FusedMatMul": "com.microsoft", "Mystery": "my.domain"}.get(operator, "")
    operands = ["x", name] if domain or len(shape) > 2 or draw(st.booleans()) else [name, "x"]
    nodes.append(helper.make_node(operator, operands, ["y"], domain=domain))
    inputs: dict[str, Any] = {"x": None, **({"w": shape} if kind == "input" else {})}
    model = made(nodes, constants, inputs)
    if kind == "sparse":
        indices = np.flatnonzero(weights)
        values = numpy_helper.from_array(weights[weights != 0], "w")
        model.graph.sparse_initializer.append(
            helper.make_sparse_tensor(values, numpy_helper.from_array(indices), shape)
        )
    model.opset_import.extend(helper.make_opsetid(other, 1) for other in ("com.microsoft", "my.domain"))
    return model, int(weights.sum()), len(shape) > 2


@given(graphs())
def test_nothing_that_reads_a_matrix_goes_missing(drawn: tuple[onnx.ModelProto, int, bool]) -> None:
    model, ones, is_conv = drawn
    if model.graph.node[-1].op_type == "Mystery":  # onnxruntime does not run it
        found = Nodes(load(model), ["x"])
        shapes = dict.fromkeys(found.others, (4, 4))
        assert [one.primitive for one in found.layers({}, shapes, {}, Batch(None)).skipped] == ["Mystery"]
        return
    traced = from_onnx(model, {"x": np.ones((1, 4, 5, 5) if is_conv else (4, 4))})
    assert len(traced) == 1
    assert not traced.skipped
    assert traced[0].weights.sum() == ones
    assert traced.sources == ((DictKey("w"),),)


def test_local_functions_are_looked_into() -> None:
    opsets = [helper.make_opsetid("", 17)]
    conv = helper.make_node("Conv", ["a", "b"], ["c"], pads=[1, 1, 1, 1])
    model = made([helper.make_node("Block", ["x", "w"], ["y"], domain="local")], {"w": KERNEL})
    model.functions.append(helper.make_function("local", "Block", ["a", "b"], ["c"], [conv], opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    (layer,) = traced = from_onnx(model, IMAGES)
    np.testing.assert_array_equal(layer.weights, KERNEL.transpose(2, 3, 1, 0) != 0)
    np.testing.assert_array_equal(convolved(layer, layer.weights, layer.activations), traced.outputs["y"])


def test_reads_files_with_data_beside_them(tmp_path: pathlib.Path) -> None:
    model = made([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": KERNEL})
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="data", size_threshold=0)
    before = sorted(path.name for path in tmp_path.iterdir())
    traced = from_onnx(tmp_path / "model.onnx", {"x": IMAGES})
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert traced[0].weights.sum() == KERNEL.sum()


CONV = made([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": KERNEL})
CONV_OF_8 = made([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": KERNEL}, {"x": [None, 3, 8, 8]})
CONV_OF_NAN = made([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": KERNEL * np.float32(np.nan)})
SUM = made([helper.make_node("Add", ["x", "z"], ["y"])], {}, {"x": [2], "z": [None, "n"]})
UNKNOWN = made([helper.make_node("Konv", ["x"], ["y"])], {})


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        ("absent.onnx", IMAGES, "path must name an ONNX file, got 'absent.onnx', which is missing"),
        (".", IMAGES, "path must name an ONNX file, got '.', which is not a file"),
        (3, IMAGES, "path must name an ONNX file or be an onnx.ModelProto, got 3"),
        ("", IMAGES, "path must name an ONNX file or be an onnx.ModelProto, got ''"),
        (__file__, IMAGES, "test_onnx.py', which cannot be read: "),
        (onnx.ModelProto(), IMAGES, "path must name an ONNX model, got the model, which has no nodes"),
        (SUM, IMAGES, "inputs must be a mapping of names to arrays, got ndarray; the model expects x: float32 "),
        (SUM, {"x": [1, 2]}, r"inputs lack 'z'; the model expects x: float32 \[2\], z: float32 \[\?, \?\]"),
        (CONV, {"X": IMAGES}, "inputs hold 'X', which the model does not know; .* expects x: float32 of any shape"),
        (CONV_OF_8, IMAGES, r"inputs give 'x' the shape \(2, 3, 8, 6\), but .* expects x: float32 \[\?, 3, 8, 8\]"),
        (CONV_OF_8, IMAGES[0], r"inputs give 'x' the shape \(3, 8, 6\), but the model expects"),
        (CONV, IMAGES.astype(str), "inputs give 'x' the type <U32, but the model expects x: float32"),
        (CONV, IMAGES[:, :1], "onnxruntime does not run the model on these inputs: "),
        (UNKNOWN, IMAGES, "onnxruntime does not run the model on these inputs: "),
        (CONV_OF_NAN, IMAGES, "weights of y, .* must not hold NaN, got 108 of them"),
        (CONV, IMAGES * np.nan, "activations of y, .* must not hold NaN, got 288 of them"),
    ],
)
def test_bad_arguments(model: Any, inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_onnx(model, inputs)


def test_without_onnx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("axes", "branches", "graph", "nodes", "operators"):
        monkeypatch.delattr(exported, name, raising=False)
        monkeypatch.delitem(sys.modules, f"phantom_jax.tracing.onnx.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install phantom-jax\[onnx\]"):
        from_onnx("model.onnx", IMAGES)


def pruned(model: onnx.ModelProto, zeros: float) -> dict[str, np.ndarray]:
    """Sets the smallest weights of all convolutions and products to zero; returns all constants."""
    tensors = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weights = numpy_helper.to_array(tensors[node.input[1]]).copy()
            smallest = np.argsort(np.abs(weights), axis=None)[: round(zeros * weights.size)]
            weights.flat[smallest] = 0
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(weights))
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def ocr_models() -> pathlib.Path:
    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or not package.submodule_search_locations:
        pytest.skip("rapidocr-onnxruntime, which ships the models, is not installed")
    return pathlib.Path(package.submodule_search_locations[0]) / "models"


def test_a_real_model_pruned_on_a_real_picture() -> None:
    """The text direction classifier of PaddleOCR, a MobileNetV3."""
    model = onnx.load(ocr_models() / "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    constants = pruned(model, zeros=0.7)
    picture = Image.fromarray(load_sample_image("china.jpg")).resize((192, 48))
    image = (np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5
    traced = from_onnx(model, image)

    assert not traced.skipped
    convs = [layer for layer in traced if layer.is_conv]
    assert (len(traced), len(convs)) == (54, 53)
    assert sum(layer.feature_group_count == layer.activations.shape[-1] > 1 for layer in convs) == 11
    assert {layer.strides for layer in convs} == {(1, 1), (2, 1), (2, 2)}
    for layer in traced:
        assert layer.weights.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(sum(traced.outputs[model.graph.output[0].name][0]), 1, rtol=1e-5)

    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    chosen = [0, 2, 13, 38, 52]  # the first and the last, depthwise of 3x3 and 5x5, each kind of stride
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    names = [name for index in chosen for name in (nodes[index].input[0], nodes[index].output[0])]
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "x")
    values = {"x": image, **from_onnx(asked, image).outputs}
    for index in chosen:
        layer, node = convs[index], nodes[index]
        activations = np.moveaxis(values[node.input[0]], 1, -1)
        weights = constants[node.input[1]].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(layer.activations, activations != 0)
        np.testing.assert_array_equal(layer.weights, weights != 0)
        output = convolved(layer, weights, activations)
        np.testing.assert_allclose(output, values[node.output[0]], rtol=1e-4, atol=1e-4 * np.abs(output).max())
        assert traced.sources[index] == (DictKey(node.input[1]),)

    report = simulate(traced, Phantom2D())
    assert [layer.name for layer in report.layers] == [f"Conv@{index}" for index in range(53)] + ["MatMul@0"]
    assert 0 < report.cycles[0] < sum(layer.dense_cycles for layer in report.layers)


@pytest.mark.parametrize(
    ("name", "shape", "layers", "skipped"),
    [
        ("ch_PP-OCRv4_det_infer", (1, 3, 64, 64), 64, 0),
        ("ch_PP-OCRv4_rec_infer", (2, 3, 48, 96), 47, 4),
        ("ch_ppocr_mobile_v2.0_cls_infer", (2, 3, 48, 192), 54, 0),
    ],
)
def test_real_models_have_all_their_contractions(name: str, shape: Any, layers: int, skipped: int) -> None:
    model = onnx.load(ocr_models() / f"{name}.onnx")
    traced = quietly(model, np.random.default_rng(0).normal(size=shape))
    assert (len(traced), len(traced.skipped)) == (layers, skipped)
    contracting = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    names = [str(layer.name) for layer in traced] + [one.name for one in traced.skipped]
    assert sorted(names) == sorted(node.name or node.output[0] for node in contracting)
    assert {layer.batch for layer in traced} == {shape[0]}
