"""An ONNX model: read, given its inputs, and run with what its nodes read."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnxruntime
from numpy.typing import ArrayLike

from phantom_jax.tracing.onnx.operators import graphs_of


def load(path: Any) -> onnx.ModelProto:
    """Returns a model without local functions, which are inlined.

    Raises:
        ValueError: The file is missing, or it holds no model.
    """
    if isinstance(path, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(path)
        return _checked(model, "the model")
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(f"path must name an ONNX file or be an onnx.ModelProto, got {path!r}.")
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        state = "is not a file" if file.exists() else "is missing"
        raise ValueError(f"path must name an ONNX file, got {str(path)!r}, which {state}.")
    try:
        model = onnx.load(file)
    except Exception as error:  # what a damaged file raises has no end
        raise ValueError(f"path must name an ONNX file, got {str(path)!r}, which cannot be read: {error}") from error
    return _checked(model, repr(str(path)))


def check_inputs(model: onnx.ModelProto, inputs: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Returns the arrays to run a model on, by the names of its inputs.

    Raises:
        ValueError: They are not what the model expects.
    """
    defaults = {initializer.name for initializer in model.graph.initializer}
    infos = {info.name: info for info in model.graph.input}
    needed = [name for name in infos if name not in defaults]
    for name, info in infos.items():
        if not info.type.HasField("tensor_type"):
            raise ValueError(f"path must name a model whose inputs are arrays, got one whose input {name!r} is not.")
    wanted = f"the model expects {', '.join(_described(infos[name]) for name in needed) or 'none'}"
    if isinstance(inputs, Mapping):
        given = dict(inputs)
    elif len(needed) == 1:
        given = {needed[0]: inputs}
    else:
        raise ValueError(f"inputs must be a mapping of names to arrays, got {type(inputs).__name__}; {wanted}.")
    for name in given:
        if name not in infos:
            raise ValueError(f"inputs hold {name!r}, which the model does not know; {wanted}.")
    for name in needed:
        if name not in given:
            raise ValueError(f"inputs lack {name!r}; {wanted}.")
    return {name: _array(infos[name], value, wanted) for name, value in given.items()}


def run(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], names: Iterable[str], shapes_of: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, Any], dict[str, tuple[int, ...]]]:
    """Returns the outputs of a model, those with the values of further tensors, and the shapes of others; by name.

    Raises:
        ValueError: onnxruntime does not run it.
    """
    outputs, nodes = [output.name for output in model.graph.output], len(model.graph.node)
    shaped = {f"shape of {name}": name for name in dict.fromkeys(shapes_of)}
    wanted = list(dict.fromkeys([*outputs, *names, *shaped]))
    model.graph.node.extend(onnx.helper.make_node("Shape", [name], [shape]) for shape, name in shaped.items())
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted[len(outputs) :])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Optimized, nodes are fused, and what they read is not there any more.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = dict(zip(wanted, session.run(wanted, dict(feeds)), strict=True))
    except Exception as error:  # its classes share no base
        raise ValueError(f"onnxruntime does not run the model on these inputs: {error}") from error
    finally:
        del model.graph.node[nodes:]
        del model.graph.output[len(outputs) :]
    shapes = {name: tuple(map(int, np.asarray(values.pop(shape)))) for shape, name in shaped.items()}
    return {name: values[name] for name in outputs}, values, shapes


def constant_axes(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Returns the values of small integer constants by name, such as axes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    kinds = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return {
        name: onnx.numpy_helper.to_array(tensor)
        for name, tensor in tensors.items()
        if tensor.data_type in kinds and len(tensor.dims) <= 1
    }


def _make_dense(graph: onnx.GraphProto) -> None:
    """Replaces sparse initializers and constants of a graph, and of its bodies, by dense ones."""
    for tensor in graph.sparse_initializer:
        graph.initializer.append(_dense(tensor, tensor.values.name))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                attribute.CopyFrom(onnx.helper.make_attribute("value", _dense(attribute.sparse_tensor, "")))
        for inner in graphs_of(node):
            _make_dense(inner)


def _dense(tensor: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    values, indices = onnx.numpy_helper.to_array(tensor.values), onnx.numpy_helper.to_array(tensor.indices)
    array = np.zeros(tuple(tensor.dims), values.dtype)
    array[tuple(indices.T) if indices.ndim > 1 else np.unravel_index(indices, array.shape)] = values
    return onnx.numpy_helper.from_array(array, name)


def _checked(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    if not model.graph.node:
        raise ValueError(f"path must name an ONNX model, got {what}, which has no nodes.")
    model = onnx.inliner.inline_local_functions(model) if model.functions else model
    _make_dense(model.graph)
    return model


def _described(info: onnx.ValueInfoProto) -> str:
    shape = _shape(info)
    sizes = "of any shape" if shape is None else f"[{', '.join(str(size or '?') for size in shape)}]"
    return f"{info.name}: {_dtype(info)} {sizes}"


def _dtype(info: onnx.ValueInfoProto) -> np.dtype:
    return onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def _shape(info: onnx.ValueInfoProto) -> list[int | None] | None:
    """Returns the sizes that are fixed, None for others (some exporters write -1 there) or where the rank is free."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    sizes = [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]
    return [size if size > 0 else None for size in sizes]


def _array(info: onnx.ValueInfoProto, value: Any, wanted: str) -> np.ndarray:
    array, shape, dtype = np.asarray(value), _shape(info), _dtype(info)
    if shape is not None and (
        array.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, array.shape, strict=True))
    ):
        raise ValueError(f"inputs give {info.name!r} the shape {array.shape}, but {wanted}.")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"inputs give {info.name!r} the type {array.dtype}, but {wanted}.")
    return array.astype(dtype)
