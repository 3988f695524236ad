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
from phantom_jax.layer import Layer, nonzero
from phantom_jax.windows import kernel_matrix, window_view

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


def lower_weights(layer: Layer, arch: Phantom2D) -> Kernels:
    """Returns the kernel matrix: channel slowest, then the kernel axes from last to first, chunked and packed."""
    matrix = kernel_matrix(nonzero(layer.weights), layer.feature_group_count)
    words = _pack(matrix, 1, arch)
    return Kernels(
        words=words,
        chunk_loads=np.bitwise_count(words).sum((2, 3), dtype=np.int64),
        tap_sums=np.count_nonzero(matrix, axis=2),
    )


def lower_activations(layer: Layer, arch: Phantom2D, image: int) -> Windows:
    """Returns the activation windows of one image: positions in row-major order, chunked and packed."""
    found = streams(layer, arch)
    view = window_view(layer, nonzero(layer.activations[image]))
    lines = view.shape[0]  # along the first output axis
    per_line = found.positions // lines
    step = max(1, _SLAB_BYTES // (per_line * found.groups * layer.reduction))
    words = np.empty((found.groups, found.chunks, found.positions, arch.pes, _column_words(arch)), _word_dtype(arch))
    tap_sums = np.zeros((found.groups, layer.reduction), np.int64)
    for line in range(0, lines, step):
        slab = view[line : line + step].reshape(-1, found.groups, layer.reduction)
        tap_sums += np.count_nonzero(slab, axis=0)
        packed = _pack(slab, 2, arch)  # [positions of the slab, groups, G, P, W]
        words[:, :, line * per_line : line * per_line + len(slab)] = packed.transpose(1, 2, 0, 3, 4)
    return Windows(words, tap_sums)


def _column_words(arch: Phantom2D) -> int:
    return -(-arch.threads // 32)


def _word_dtype(arch: Phantom2D) -> type[np.unsignedinteger]:
    return np.uint8 if arch.threads <= 8 else np.uint16 if arch.threads <= 16 else np.uint32


def _pack(matrix: Bool[np.ndarray, "..."], axis: int, arch: Phantom2D) -> UInt[np.ndarray, "..."]:
    """Cuts the reduction axis into chunks, the last one zero-filled, and packs each column's bits, thread 0 lowest.

    In place of `axis`, the result has the axes chunks, columns (P) and words.
    """
    before, after = matrix.shape[:axis], matrix.shape[axis + 1 :]
    chunks = -(-matrix.shape[axis] // arch.slots)
    missing = [(0, 0)] * matrix.ndim
    missing[axis] = (0, chunks * arch.slots - matrix.shape[axis])
    padded = np.pad(matrix, missing) if missing[axis][1] else matrix
    threads = np.moveaxis(padded.reshape(*before, chunks, arch.pes, arch.threads, *after), axis + 2, 0)
    dtype = _word_dtype(arch)
    words = np.zeros((_column_words(arch), *threads.shape[1:]), dtype)
    for thread, bits in enumerate(threads):
        words[thread // 32] |= bits.astype(dtype) << dtype(thread % 32)
    return np.moveaxis(words, 0, axis + 2)
