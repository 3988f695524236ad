"""Tracing Flax and ONNX models: geometry, masks, names, sources and MACs of full networks; modules that hold state."""

import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import linen, nnx

from phantom_jax import Layer, from_onnx, trace
from phantom_jax.training.networks import MODELS
from phantom_jax.workloads import NETWORKS

LIGHT = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"  # ONNX's own test models, without their weights


def filled(model: nnx.Module) -> nnx.Module:
    """Fills a model of shapes with values, faster than drawing all of them; half of kernels and matrices are zeros."""
    rng = np.random.default_rng(0)
    pool = np.abs(rng.standard_normal(100_003, np.float32)) + 0.1
    kept = pool * rng.choice([-0.05, 0, 0, 0.05], pool.size).astype(np.float32)
    return jax.tree.map(lambda leaf: jnp.asarray(np.resize(kept if leaf.ndim > 1 else pool, leaf.shape)), model)


def read(monkeypatch: pytest.MonkeyPatch, model: Any, images: jax.Array) -> tuple[list[tuple[Any, Any]], jax.Array]:
    """Returns the kernel and the input of each layer in the order of running, and the logits, without tracing."""
    seen = []

    def spy(kind: type) -> None:
        call = kind.__call__

        def spied(self: Any, inputs: jax.Array) -> jax.Array:
            seen.append((np.asarray(self.kernel[...]), np.asarray(inputs)))
            return call(self, inputs)

        monkeypatch.setattr(kind, "__call__", spied)

    spy(nnx.Conv)
    spy(nnx.Linear)
    with jax.disable_jit():
        logits = model(images)
    monkeypatch.undo()
    return seen, logits


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("mobilenet_v1", 32),
        pytest.param("mobilenet_v1", 224, marks=pytest.mark.slow),
        pytest.param("vgg16", 224, marks=pytest.mark.slow),
    ],
)
def test_full_networks(monkeypatch: pytest.MonkeyPatch, name: str, side: int) -> None:
    model: Any = filled(nnx.eval_shape(lambda: MODELS[name]((side, side, 3), 1000, nnx.Rngs(0))))
    model.eval()
    images = jnp.asarray(np.random.default_rng(1).standard_normal((1, side, side, 3), np.float32))
    traced = trace(model, images)
    seen, logits = read(monkeypatch, model, images)
    np.testing.assert_array_equal(traced.outputs, logits)

    shapes = NETWORKS[name](side).layers
    assert len(traced) == len(seen) == len(shapes) == {"vgg16": 16, "mobilenet_v1": 28}[name]
    assert not traced.skipped
    for layer, (kernel, inputs), shape, source in zip(traced, seen, shapes, traced.sources, strict=True):
        make: Any = Layer.conv if len(shape.weights) == 4 else Layer.dense
        ones = (np.broadcast_to(True, size) for size in (shape.weights, (1, *shape.activations)))
        expected = make(*ones, **shape.geometry, name=shape.name)
        for field in ("strides", "padding", "input_dilation", "kernel_dilation", "feature_group_count", "name"):
            assert getattr(layer, field) == getattr(expected, field), (layer.name, field)
        assert layer.weights.shape == shape.weights
        assert layer.activations.shape == (1, *shape.activations)
        assert np.array_equal(layer.weights, kernel != 0)
        assert np.array_equal(layer.activations, inputs != 0)
        assert jax.tree_util.keystr(source or ()) == f"[0].{layer.name}.kernel.value"
    densities = np.array([(layer.weights.mean(), layer.activations.mean()) for layer in traced])
    assert ((densities > 0.05) & (densities < 0.95)).any(0).all()


class Block(nnx.Module):
    """Holds all kinds of state."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.features = nnx.List([nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        for layer in self.features:
            images = layer(images)
        return self.head(self.dropout(nnx.relu(images).mean((1, 2))))


def test_a_module_in_training_is_left_as_it_is() -> None:
    block: Any = Block()
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    before = jax.tree.map(jnp.copy, nnx.state(block, nnx.Not(nnx.RngKey)))
    traced = trace(block, images)
    assert [layer.name for layer in traced] == ["features.0", "head"]
    assert traced[0].strides == (2, 2)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(block, nnx.Not(nnx.RngKey)))
    with jax.disable_jit():
        np.testing.assert_array_equal(traced.outputs, block(images))
    assert block.features[1].mean[...].any()  # what running it otherwise does


def test_sources_find_the_parameters_of_a_module() -> None:
    block, images = Block(), jnp.ones((1, 8, 8, 3))
    fn: Any = block
    traced = trace(fn, images)
    for layer, source in zip(traced, traced.sources, strict=True):
        pruned = jax.tree_util.tree_map_with_path(
            lambda path, leaf, source=source: leaf * 0 if path == source else leaf, (block, images)
        )
        again = {str(one.name): one for one in trace(*pruned)}
        assert layer.weights.any()
        assert not again[str(layer.name)].weights.any()


def test_a_module_that_is_closed_over_cannot_update_its_state() -> None:
    block = Block()
    with pytest.raises(Exception, match="Cannot mutate BatchStat"):
        trace(lambda images: block(images), jnp.ones((1, 8, 8, 3)))
    block.eval()
    traced = trace(lambda images: block(images), jnp.ones((1, 8, 8, 3)))
    assert traced.sources == (None, None)
    assert str(traced[0].name).startswith("Block.__call__:")


def test_a_linen_module() -> None:
    class Network(linen.Module):
        @linen.compact
        def __call__(self, images: jax.Array) -> jax.Array:
            return linen.Dense(2)(linen.Conv(4, (3, 3))(images).mean((1, 2)))

    network, images = Network(), jnp.ones((1, 5, 5, 3))
    variables = network.init(jax.random.key(0), images)
    assert [layer.name for layer in trace(network.apply, variables, images)] == ["params.Conv_0", "params.Dense_0"]
    names = [layer.name for layer in trace(lambda images: network.apply(variables, images), images)]
    assert names == ["Network/Conv_0", "Network/Dense_0"]


def macs_by_shape(model: onnx.ModelProto) -> list[int]:
    """Returns the dense MACs of each Conv, Gemm and MatMul for one image, from the shapes that ONNX infers."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    known = (*graph.input, *graph.value_info, *graph.output)
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in known}
    macs = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        output, weights = shapes[node.output[0]], shapes[node.input[1]]  # of Conv: [K, Cin/groups, *kernel]
        filters = weights[0] if node.op_type == "Conv" else output[-1]
        macs.append(math.prod(output[1:]) * math.prod(weights) // filters)
    return macs


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("bvlc_alexnet", 8),
        ("densenet121", 121),
        ("inception_v1", 58),
        ("inception_v2", 70),
        ("resnet50", 54),
        ("shufflenet", 50),
        ("squeezenet", 26),
        pytest.param("vgg19", 19, marks=pytest.mark.slow),
        ("zfnet512", 8),
    ],
)
def test_light_models_give_all_their_layers_with_the_macs_of_their_shapes(name: str, layers: int) -> None:
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    fed = {value.name for value in model.graph.input} - {value.name for value in model.graph.initializer}
    traced = from_onnx(model, {image: np.ones((1, 3, 224, 224), np.float32) for image in fed})
    expected = macs_by_shape(model)
    assert len(expected) == layers
    assert [layer.positions * layer.reduction * layer.filters for layer in traced] == expected
    assert not traced.skipped
