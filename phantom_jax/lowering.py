"""Layer -> entries of lookahead masks, as bits: one rule for all layer kinds (SPEC 3).

The reduction axis of a group is cut into chunks of S = P * T slots; slot i of a chunk is thread i mod T of column
i // T. A column's T bits are packed into little-endian words, so the AND of a kernel word and a window word holds an
*entry*, and its population count is what the top-down selector reads. Threads beyond T, slots beyond the reduction
axis and zeros that padding or input dilation inserts are zero bits: they never count as work.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, UInt

from phantom_jax.arch import Phantom2D
from phantom_jax.layer import Layer

_SLAB_BYTES = 1 << 26  # how much of the unpacked windows is alive at a time


@dataclasses.dataclass(frozen=True)
class Streams:
    """How a layer's work is cut into jobs, each a stream of lookahead masks."""

    groups: int
    chunks: int  # per group, G
    positions: int  # per image, N
    filters: int  # over all groups, K
    axis: str  # what a stream runs along, "positions" or "chunks"

    @property
    def jobs(self) -> int:
        """Jobs per filter, J: chunks of streams along positions, positions of streams along chunks."""
        return self.chunks if self.axis == "positions" else self.positions

    @property
    def length(self) -> int:
        """Lookahead masks per stream, M."""
        return self.positions if self.axis == "positions" else self.chunks


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The kernel matrix of a layer, as bits and as sums."""

    words: UInt[np.ndarray, "groups chunks pes words filters_per_group"]
    chunk_loads: Int[np.ndarray, "groups chunks filters_per_group"]  # non-zero weights per chunk and filter
    tap_sums: Int[np.ndarray, "groups reduction"]  # non-zero weights per element of the reduction axis


@dataclasses.dataclass(frozen=True)
class Windows:
    """The activation windows of one image, as bits and as sums."""

    words: UInt[np.ndarray, "groups chunks positions pes words"]
    tap_sums: Int[np.ndarray, "groups reduction"]  # non-zero activations per element of the reduction axis


def streams(layer: Layer, arch: Phantom2D) -> Streams:
    """Cuts a layer into jobs: along positions if there are enough of them to fill a block, else along chunks."""
    chunks = -(-layer.reduction // arch.slots)
    axis = "positions" if layer.positions >= min(arch.lookahead, chunks) else "chunks"
    return Streams(layer.feature_group_count, chunks, layer.positions, layer.filters, axis)


def mask(values: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Returns which elements are non-zero."""
    values = np.asarray(values)
    return values if values.dtype == bool else values != 0


def lower_weights(layer: Layer, arch: Phantom2D) -> Kernels:
    """Returns the kernel matrix: channel slowest, then the kernel axes from last to first, chunked and packed."""
    weights = mask(layer.weights)
    groups, reduction = layer.feature_group_count, layer.reduction
    taps = tuple(reversed(range(weights.ndim - 2)))
    matrix = weights.transpose(weights.ndim - 2, *taps, weights.ndim - 1)  # [Cin/groups, *reversed kernel, K]
    matrix = matrix.reshape(reduction, groups, -1).transpose(1, 2, 0)  # [groups, K/groups, Rd]
    chunks = _chunk(matrix, arch)  # [groups, K/groups, G, P, T]
    words = _pack(chunks)  # [groups, K/groups, G, P, W]
    return Kernels(
        words=np.ascontiguousarray(words.transpose(0, 2, 3, 4, 1)),
        chunk_loads=np.count_nonzero(chunks, axis=(3, 4)).transpose(0, 2, 1),
        tap_sums=np.count_nonzero(matrix, axis=1),
    )


def lower_activations(layer: Layer, arch: Phantom2D, image: int) -> Windows:
    """Returns the activation windows of one image: positions in row-major order, chunked and packed."""
    cut = streams(layer, arch)
    view = _window_view(layer, mask(layer.activations[image]))
    lines = view.shape[0]  # along the first output axis
    per_line = cut.positions // lines
    step = max(1, _SLAB_BYTES // (per_line * cut.groups * layer.reduction))
    words = np.empty(
        (cut.groups, cut.chunks, cut.positions, arch.pes, _words_per_column(arch.threads)), _word_dtype(arch.threads)
    )
    tap_sums = np.zeros((cut.groups, layer.reduction), np.int64)
    for line in range(0, lines, step):
        slab = view[line : line + step].reshape(-1, cut.groups, layer.reduction)
        tap_sums += np.count_nonzero(slab, axis=0)
        packed = _pack(_chunk(slab, arch))  # [positions of the slab, groups, G, P, W]
        words[:, :, line * per_line : line * per_line + len(slab)] = packed.transpose(1, 2, 0, 3, 4)
    return Windows(words, tap_sums)


def _window_view(layer: Layer, image: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Returns a view `[*output, Cin, *reversed kernel]` of an image `[*spatial, Cin]`."""
    if not layer.is_conv:
        return image.reshape(-1, image.shape[-1])
    kernel = layer.weights.shape[:-2]
    rank = len(kernel)
    sizes = [(size - 1) * step + 1 for size, step in zip(image.shape, layer.input_dilation, strict=False)]
    padded = np.zeros([low + size + high for size, (low, high) in zip(sizes, layer.padding, strict=True)] + [image.shape[-1]], bool)
    inside = zip(sizes, layer.padding, layer.input_dilation, strict=True)
    padded[tuple(slice(low, low + size, step) for size, (low, _), step in inside)] = image
    extents = [(size - 1) * step + 1 for size, step in zip(kernel, layer.kernel_dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=tuple(range(rank)))
    steps = (*layer.strides, 1, *layer.kernel_dilation)
    view = view[tuple(slice(None, None, step) for step in steps)]  # [*output, Cin, *kernel]
    return view.transpose(*range(rank + 1), *reversed(range(rank + 1, 2 * rank + 1)))


def _chunk(matrix: Bool[np.ndarray, "... reduction"], arch: Phantom2D) -> Bool[np.ndarray, "... chunks pes threads"]:
    """Cuts the last axis into chunks of S slots, the last one zero-filled."""
    *rest, reduction = matrix.shape
    chunks = -(-reduction // arch.slots)
    if chunks * arch.slots == reduction:
        filled = matrix
    else:
        filled = np.zeros((*rest, chunks * arch.slots), bool)
        filled[..., :reduction] = matrix
    return filled.reshape(*rest, chunks, arch.pes, arch.threads)


def _words_per_column(threads: int) -> int:
    return -(-threads // 32)


def _word_dtype(threads: int) -> type[np.unsignedinteger]:
    return np.uint8 if threads <= 8 else np.uint16 if threads <= 16 else np.uint32


def _pack(bits: Bool[np.ndarray, "... threads"]) -> UInt[np.ndarray, "... words"]:
    """Packs a column's bits into words, thread 0 lowest."""
    *rest, threads = bits.shape
    dtype = _word_dtype(threads)
    words = np.zeros((*rest, _words_per_column(threads)), dtype)
    for thread in range(threads):
        words[..., thread // 32] |= bits[..., thread].astype(dtype) << dtype(thread % 32)
    return words
