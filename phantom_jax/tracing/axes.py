"""How the primitives of JAX move the axes of their operands."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from phantom_jax.tracing.images import Images, merged, without

_REDUCING = ("argmax", "argmin")  # beside reduce_sum, reduce_max, ...


def images_after(
    primitive: str,
    params: Mapping[str, Any],
    shapes: Sequence[Sequence[int]],
    images: Sequence[Images | None],
    result: Any,
) -> Images | None:
    """Returns where the result of a primitive holds its images; None if that is not known.

    Args:
        primitive: Its name.
        params: Its parameters, as in a jaxpr.
        shapes: Of its operands.
        images: Where the operands hold theirs.
        result: The abstract value of the result.
    """
    new = getattr(result, "shape", ())
    if primitive == "conv_general_dilated":
        return _after_convolution(params["dimension_numbers"], images[0], new)
    return merged(
        [
            None if one is None else _moved(primitive, params, position, shape, one, new)
            for position, (shape, one) in enumerate(zip(shapes, images, strict=True))
        ]
    )


def _moved(
    primitive: str, params: Mapping[str, Any], position: int, old: Sequence[int], images: Images, new: Sequence[int]
) -> Images | None:
    axis = images.axis
    if primitive == "reshape":
        return images.reshaped(old, new) if params["dimensions"] is None else images.along(None)
    if axis is None:
        return images
    if primitive == "transpose":
        return images.along(tuple(params["permutation"]).index(axis))
    if primitive == "broadcast_in_dim":
        target = params["broadcast_dimensions"][axis]
        return images.along(target if new[target] == old[axis] else None)
    if primitive == "squeeze":
        return images.along(without(axis, [dimension % len(old) for dimension in params["dimensions"]]))
    if (primitive.startswith("reduce_") and "axes" in params) or primitive in _REDUCING:
        return images.along(without(axis, params["axes"]))
    if primitive == "dot_general":
        return images.along(_after_product(params["dimension_numbers"], position, axis, len(old), len(new)))
    if primitive == "gather" and position == 0:
        return images.along(_after_gather(params, axis, old))
    return images.kept(old, new)


def _after_convolution(numbers: Any, images: Images | None, new: Sequence[int]) -> Images:
    batch = numbers.out_spec[0]
    if images is not None and images.is_sure and images.axis == numbers.lhs_spec[0]:
        return dataclasses.replace(images, axis=batch)
    return Images(new[batch], batch, is_sure=True)


def _after_product(numbers: Any, position: int, axis: int, rank: int, new_rank: int) -> int | None:
    contracting, batch = numbers[0][position], numbers[1][position]
    if axis in batch:
        return list(batch).index(axis)
    if axis in contracting:
        return None
    free = [other for other in range(rank) if other not in (*contracting, *batch)]
    first = len(batch) if position == 0 else new_rank - len(free)
    return first + free.index(axis)


def _after_gather(params: Mapping[str, Any], axis: int, old: Sequence[int]) -> int | None:
    numbers = params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    if axis in gone or params["slice_sizes"][axis] != old[axis]:
        return None
    offsets = [other for other in range(len(old)) if other not in gone]
    return numbers.offset_dims[offsets.index(axis)]
