"""What a layer's kernel elements meet: its reduction axis, and windows of its padded input (SPEC 3)."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from phantom_jax.layer import Layer


def kernel_matrix(weights: Any, groups: int) -> Any:
    """Returns weights `[*kernel, Cin/groups, K]`, of NumPy or JAX, as matrices `[groups, Rd, K/groups]`."""
    taps = tuple(reversed(range(weights.ndim - 2)))
    matrix = weights.transpose(weights.ndim - 2, *taps, weights.ndim - 1)  # [Cin/groups, *reversed kernel, K]
    return matrix.reshape(-1, groups, matrix.shape[-1] // groups).swapaxes(0, 1)


def kernel_index(kernel: tuple[int, ...], tap: int) -> tuple[int, ...]:
    """Returns where the tap-th element of a kernel lies, in the order of the reduction axis: last axis slowest."""
    return tuple(int(at) for at in np.unravel_index(tap, kernel[::-1])[::-1])


def pad_spatial(layer: Layer, array: np.ndarray) -> np.ndarray:
    """Pads and dilates the last axes of an array, the spatial ones of a layer's input, with zeros."""
    if not layer.is_conv:
        return array
    rank = len(layer.strides)
    sizes = [(size - 1) * step + 1 for size, step in zip(array.shape[-rank:], layer.input_dilation, strict=True)]
    shape = [low + size + high for size, (low, high) in zip(sizes, layer.padding, strict=True)]
    padded = np.zeros((*array.shape[:-rank], *shape), array.dtype)
    inside = zip(sizes, layer.padding, layer.input_dilation, strict=True)
    padded[..., *(slice(low, low + size, step) for size, (low, _), step in inside)] = array
    return padded


def tap_slices(layer: Layer, index: tuple[int, ...]) -> tuple[slice, ...]:
    """Returns where a kernel element finds its activations, per spatial axis of the padded input; none if dense."""
    if not layer.is_conv:
        return ()
    offsets = [at * step for at, step in zip(index, layer.kernel_dilation, strict=True)]
    return tuple(
        slice(offset, offset + (size - 1) * stride + 1, stride)
        for offset, size, stride in zip(offsets, layer.output_shape, layer.strides, strict=True)
    )


def window_view(layer: Layer, image: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Returns a view `[*output, Cin, *reversed kernel]` of an image `[*spatial, Cin]`."""
    if not layer.is_conv:
        return image.reshape(-1, image.shape[-1])
    kernel = layer.weights.shape[:-2]
    rank = len(kernel)
    padded = np.moveaxis(pad_spatial(layer, np.moveaxis(image, -1, 0)), 0, -1)
    extents = [(size - 1) * step + 1 for size, step in zip(kernel, layer.kernel_dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=tuple(range(rank)))
    steps = (*layer.strides, 1, *layer.kernel_dilation)
    view = view[tuple(slice(None, None, step) for step in steps)]  # [*output, Cin, *kernel]
    return view.transpose(*range(rank + 1), *reversed(range(rank + 1, 2 * rank + 1)))
