"""How ONNX's operators move the axes of their inputs, and where that leaves the images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from phantom_jax.tracing.images import Images, merged, without
from phantom_jax.tracing.onnx.operators import VALUE_FREE, attributes_of, domain_of, operator_of

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_RECURRENT = ("LSTM", "GRU", "RNN")
_LOST = ("Einsum", "Loop", "Scan", "If", "SequenceMap", "Optional", "SplitToSequence", "SequenceConstruct", "ZipMap")


def followed(graph: onnx.GraphProto, inputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Returns the nodes through which images can be followed from the inputs of a graph."""
    reached, nodes = set(inputs), []
    for node in graph.node:
        if node.op_type not in (*_LOST, *VALUE_FREE) and reached.intersection(node.input):
            nodes.append(node)
            reached.update(name for name in node.output if name)
    return nodes


def tensors_of(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """Yields the names of the tensors whose shapes `follow` needs."""
    for node in nodes:
        yield from (name for name in (*node.input, *node.output) if name)


def follow(
    nodes: Sequence[onnx.NodeProto],
    start: Mapping[str, Images | None],
    shapes: Mapping[str, Sequence[int]],
    constants: Mapping[str, np.ndarray],
) -> dict[str, Images | None]:
    """Returns where tensors hold their images; None for those whose trail is lost.

    Args:
        nodes: See `followed`.
        start: The images of the inputs.
        shapes: Of the tensors.
        constants: Values of constants among the inputs of nodes, such as axes.
    """
    images = dict(start)
    for node in nodes:
        attributes = attributes_of(node)
        if node.op_type.startswith("Reduce"):
            attributes.setdefault("axes", constants.get(node.input[1]) if len(node.input) > 1 else None)
        for position, output in enumerate(node.output):
            if output:
                candidates = [
                    _moved(node, attributes, index, position, one, shapes[name], shapes[output])
                    for index, name in enumerate(node.input)
                    if (one := images.get(name)) is not None
                ]
                images[output] = merged(candidates)
    return images


def _moved(
    node: onnx.NodeProto,
    attributes: Mapping[str, Any],
    position: int,
    output: int,
    images: Images,
    old: Sequence[int],
    new: Sequence[int],
) -> Images | None:
    """Returns where an output has the images of an input; `position` and `output` are their places."""
    operator, axis = node.op_type, images.axis
    found = operator_of(node)
    if found is not None and not found.is_product:
        return _after_convolution(images, new) if position == found.left else None
    if operator in _RESHAPING:
        return images.reshaped(old, new)
    if axis is None:
        return images
    if operator == "Transpose":
        order = list(attributes.get("perm") or reversed(range(len(old))))
        return images.along(order.index(axis))
    if found is not None:
        return images.along(_after_product(attributes, position == found.left, axis, len(old), len(new)))
    if operator == "Gather" and not domain_of(node):
        return images.along(_after_gather(attributes.get("axis", 0), position, axis, len(old), len(new)))
    if operator in _RECURRENT and position == 0:
        return images.along(_after_recurrence(attributes.get("layout", 0), output, axis))
    if operator.startswith("Reduce") or operator in ("ArgMax", "ArgMin"):
        return images.along(_after_reduction(attributes, axis, old, new))
    shifted = axis + len(new) - len(old)  # as what is broadcast is aligned at its end
    return images.along(shifted if 0 <= shifted < len(new) and new[shifted] == old[axis] else None)


def _after_convolution(images: Images, new: Sequence[int]) -> Images:
    return images if images.is_sure and images.axis == 0 else Images(new[0], 0, is_sure=True)


def _after_product(attributes: Mapping[str, Any], is_left: bool, axis: int, rank: int, new_rank: int) -> int | None:
    if rank == 1:
        return None
    is_transposed = attributes.get("transA" if is_left else "transB", 0)
    free, contracted = (rank - 2, rank - 1) if is_left != bool(is_transposed) else (rank - 1, rank - 2)
    if axis == contracted:
        return None
    if axis == free:
        return new_rank - 2 if is_left else new_rank - 1
    return axis + new_rank - rank


def _after_gather(along: int, position: int, axis: int, rank: int, new_rank: int) -> int | None:
    if position == 1:  # of indices, whose axes take the place of the one that is gathered along
        data_rank = new_rank - rank + 1
        return axis + along % data_rank
    along %= rank
    if axis == along:
        return None
    return axis if axis < along else axis + new_rank - rank


def _after_recurrence(layout: int, output: int, axis: int) -> int | None:
    """Returns the batch axis of an output: all steps, the last one, the last cell state."""
    if axis != (0 if layout else 1):
        return None
    if layout:
        return 0
    return 2 if output == 0 else 1


def _after_reduction(attributes: Mapping[str, Any], axis: int, old: Sequence[int], new: Sequence[int]) -> int | None:
    if len(old) == len(new):
        return axis if old[axis] == new[axis] else None
    axes = attributes.get("axes", attributes.get("axis", 0))
    if axes is None:
        return None
    return without(axis, [int(other) % len(old) for other in np.ravel(axes)])
