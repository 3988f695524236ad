"""ONNX models: what their nodes compute is what the layers compute."""

import importlib.util
import pathlib
import sys
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import DictKey
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_sample_image

from phantom_jax import Layer, Phantom2D, Traced, from_onnx, simulate
from phantom_jax.tracing import onnx as exported
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


def quietly(model: Any, inputs: Any) -> Traced:
    """Traces without the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return from_onnx(model, inputs)


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
    auto = draw(st.sampled_from(["NOTSET", "VALID", *["SAME_UPPER", "SAME_LOWER"] * (operator == "Conv")]))
    if auto.startswith("SAME"):
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
    images = rng.random((draw(st.integers(1, 2)), groups * per_group, *spatial)) < 0.6
    return operator, images, rng.random(shape) < 0.6, attributes


@settings(max_examples=60)
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
    with pytest.warns(UserWarning, match="what makes no layer is left out") as told:
        traced = from_onnx(model, np.eye(2))
    assert told[0].filename == __file__
    assert model.SerializeToString() == before
    assert [layer.name for layer in traced] == ["fc", "head", "h"]
    assert traced.sources == ((DictKey("c"),), (DictKey("q"),), None)
    np.testing.assert_array_equal(traced[1].weights, [[False, False], [True, False]])
    reasons = {skipped.name: (skipped.primitive, skipped.shapes, skipped.reason) for skipped in traced.skipped}
    assert reasons == {
        "scores": ("MatMul", ((2, 2), (2, 2)), "its right operand is no constant, so it has no weights"),
        "reversed": ("MatMul", ((2, 2), (2, 2)), "its right operand is no constant, so it has no weights"),
        "experts": (
            "MatMul",
            ((2, 2), (2, 2, 2)),
            "its weights have batch axes; a layer has one set of weights for all images",
        ),
        "summed": ("Einsum", ((2, 2), (2, 2)), "Einsum is not read"),
        "up": (
            "ConvTranspose",
            ((1, 1, 4), (1, 1, 2)),
            "its padding follows from output_shape or auto_pad, which is not read",
        ),
        "inner": ("MatMul", (), "it is in the body of gate (If)"),
        "inner#2": ("MatMul", (), "it is in the body of gate (If)"),
    }  # fmt: skip
    assert set(traced.outputs) == {"y", "batched", "up"}


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
    for name in ("graph", "nodes"):
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


def test_a_real_model_pruned_on_a_real_picture() -> None:
    """The text direction classifier of PaddleOCR, a MobileNetV3."""
    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or not package.submodule_search_locations:
        pytest.skip("rapidocr-onnxruntime, which ships the model, is not installed")
    folder = pathlib.Path(package.submodule_search_locations[0])
    model = onnx.load(folder / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx")
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
