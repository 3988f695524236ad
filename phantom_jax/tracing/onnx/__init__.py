"""From an exported network, an ONNX model, to layers. Nothing of ONNX is imported before it is asked for."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from phantom_jax.tracing.images import Batch
from phantom_jax.tracing.traced import Traced

if TYPE_CHECKING:
    import onnx

__all__ = ["from_onnx"]


def from_onnx(
    path: "str | os.PathLike[str] | onnx.ModelProto",
    inputs: ArrayLike | Mapping[str, ArrayLike],
    batch: int | Mapping[str, int] | None = None,
) -> Traced:
    """Runs an ONNX model and returns the layers that it ran: boolean masks of its convolutions and dense products.

    Convolutions and transposed ones of one to three spatial axes, and products, make layers where their kernel, or one
    operand of a product, is a constant: an initializer that is not fed, dense or sparse, or what is computed from these
    alone (dequantized, transposed). So do quantized ones (`QLinearConv`, `MatMulInteger`, ...), where zero is the zero
    point, and onnxruntime's fused ones. Activations are what onnxruntime computes for the inputs. An `If` is replaced
    by the branch that runs. Whatever else contracts is listed in `skipped` and in a warning: products of two
    activations, recurrent layers, what is in the body of a `Loop` or `Scan`, and every operator that is not known and
    reads a constant of two axes or more.

    The images B lie along the first axis of the inputs, or of what the convolution before read. They are followed
    through transposes, reshapes, and all else that keeps their axis; where the trail is lost, the first axis is taken.
    What is left of the axes of a product is flattened to positions Q.

    Names are those of the nodes (of their outputs, where nodes have none), made unique by `#2`. A source is
    `(DictKey(name),)` of the initializer or `Constant` that the weights are, as they are or transposed, reshaped,
    cast or dequantized; None if they are computed otherwise.

    Args:
        path: The file, or a loaded model. Neither is changed.
        inputs: The array for the only input, or arrays by the names of the inputs; in the model's own layout, which is
            NCHW as a rule. Numbers of another width (float64) are cast.
        batch: The axis that holds the images: of all inputs; or of single ones, by the names of inputs or of layers,
            whose activations are meant as the node reads them.

    Returns:
        A sequence of layers. Its `outputs` are the model's by name, as NumPy arrays.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        ValueError: There is no such file, it holds no ONNX model or one that onnxruntime does not run, inputs are
            missing, unknown or of another shape or type, an operand of a layer holds NaN, or `batch` does not fit.
    """
    try:
        from phantom_jax.tracing.onnx import axes, branches, graph, nodes
    except ImportError as error:
        raise ImportError(f"from_onnx needs onnx and onnxruntime: pip install phantom-jax[onnx] ({error})") from error
    places = Batch(batch)
    model = graph.load(path)
    feeds = graph.check_inputs(model, inputs)
    branches.take_branches(model, lambda model, names: graph.run(model, feeds, names)[1])
    found = nodes.Nodes(model, list(feeds))
    path_of_images = axes.followed(model.graph, list(feeds))
    asked = [*axes.tensors_of(path_of_images), *found.others]
    outputs, values, shapes = graph.run(model, feeds, found.operands, asked)
    start = {name: places.of_input(name, array.shape) for name, array in feeds.items()}
    images = axes.follow(path_of_images, start, shapes, graph.constant_axes(model.graph))
    findings = found.layers(values, shapes, images, places)
    places.check()
    return findings.traced(outputs)
