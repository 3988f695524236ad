"""From an exported network, an ONNX model, to layers. Nothing of ONNX is imported before it is asked for."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from phantom_jax.tracing import Traced

if TYPE_CHECKING:
    import onnx

__all__ = ["from_onnx"]


def from_onnx(path: "str | os.PathLike[str] | onnx.ModelProto", inputs: ArrayLike | Mapping[str, ArrayLike]) -> Traced:
    """Runs an ONNX model and returns the layers that it ran: boolean masks of its convolutions and dense products.

    `Conv` and `ConvTranspose` of one to three spatial axes, `Gemm` and `MatMul` make layers where their right operand
    is a constant: an initializer, or computed from initializers alone (dequantized, transposed). Activations are what
    onnxruntime computes for the inputs. The first axis of what a `MatMul` reads is the images B, the others before the
    last are flattened to positions Q. Whatever else contracts is listed in `skipped` and in a warning: products
    of two activations, quantized operators, recurrent layers, what is in the body of an `If`, `Loop` or `Scan`.

    Names are those of the nodes (of their outputs, where nodes have none), made unique by `#2`. A source is
    `(DictKey(name),)` of the initializer or `Constant` that the weights are, as they are or transposed, reshaped,
    cast or dequantized; None if they are computed otherwise.

    Args:
        path: The file, or a loaded model. Neither is changed.
        inputs: The array for the only input, or arrays by the names of the inputs; in the model's own layout, which is
            NCHW as a rule. Numbers of another width (float64) are cast.

    Returns:
        A sequence of layers. Its `outputs` are the model's by name, as NumPy arrays.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        ValueError: There is no such file, it holds no ONNX model or one that onnxruntime does not run, inputs are
            missing, unknown or of another shape or type, or an operand of a layer holds NaN.
    """
    try:
        from phantom_jax.tracing.onnx import graph, nodes
    except ImportError as error:
        raise ImportError(f"from_onnx needs onnx and onnxruntime: pip install phantom-jax[onnx] ({error})") from error
    model = graph.load(path)
    findings = nodes.Nodes(model)
    feeds = graph.check_inputs(model, inputs)
    outputs, values = graph.run(model, feeds, findings.operands)
    return findings.layers(values).traced(outputs)
