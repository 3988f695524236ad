"""Pattern tables of layers: from the exact engine, from traced bits, or as expectations (SPEC 8)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import Blocks, Streams, job_counter
from phantom_jax.layer import Layer
from phantom_jax.proxy.jobs.chunks import block_survival, central_moments
from phantom_jax.proxy.jobs.patterns import pattern_bits
from phantom_jax.proxy.jobs.traced import job_cycles
from phantom_jax.proxy.numerics import tiled_map

Segments = tuple[tuple[int, int], ...]
_TILE_ENTRIES = 1 << 24  # of lookahead masks by columns that are counted together in traced code


def count_patterns(layer: Layer, streams: Streams, segments: Segments, arch: Phantom2D) -> np.ndarray:
    """Counts the cycles of every chunk's stream for every kernel pattern, exactly.

    Returns:
        `[B, groups * chunks, segments, patterns]`.
    """
    occupied_slots = min(arch.slots, layer.reduction)
    bits = pattern_bits(occupied_slots).astype(bool)
    *kernel, channels, _ = layer.weights.shape
    element = np.arange(layer.reduction).reshape(channels, *kernel[::-1])  # along the reduction axis
    element = element.transpose(*range(len(kernel), 0, -1), 0) % arch.slots
    weights = np.concatenate([bits[element]] * streams.groups, axis=-1)
    patterns = dataclasses.replace(layer, weights=weights, activations=np.asarray(layer.activations))
    counter = job_counter(patterns, dataclasses.replace(streams, filters=patterns.filters), arch)
    tables = []
    for image in range(layer.batch):
        cycles = counter.count(image, list(segments)).cycles  # [groups * patterns, J, segments]
        cycles = cycles.reshape(streams.groups, -1, *cycles.shape[1:])
        tables.append(cycles.transpose(0, 2, 3, 1).reshape(-1, len(segments), cycles.shape[1]))
    return np.stack(tables)


def traced_tables(
    streams: Array, segments: Segments, occupied_slots: int, arch: Phantom2D
) -> tuple[Float[Array, "units segments patterns"], Float[Array, "units segments patterns"] | None]:
    """Returns tables inside of traced code, of mean cycles and, for probable activations, of their variance.

    Args:
        streams: Windows `[units, N, P, T]` of each chunk.
        segments: Of the streams.
        occupied_slots: Slots that a chunk occupies at most.
        arch: The accelerator.
    """
    bits = np.zeros((1 << occupied_slots, arch.slots), bool)
    bits[:, :occupied_slots] = pattern_bits(occupied_slots).T
    kernels = jnp.asarray(bits.reshape(-1, 1, arch.pes, arch.threads))
    blocks = Blocks.of(segments, arch.lookahead)
    entries = blocks.masks.size * arch.pes

    def expected(arguments: tuple[Array, Array]) -> tuple[Array, Array]:
        stream, kernel = arguments
        mean, variance, _ = central_moments(block_survival(blocks.take(stream * kernel), arch))
        sums = [jax.ops.segment_sum(array, blocks.segment, len(segments)) for array in (mean, variance)]
        return sums[0] * kernel.any(), sums[1] * kernel.any()

    def counted(arguments: tuple[Array, Array]) -> Array:
        stream, kernel = arguments
        return job_cycles(kernel, stream, segments, arch).astype(jnp.float32)

    def per_unit(function, size: int):
        tile = max(1, size // entries)
        tables = jax.lax.map(
            lambda stream: tiled_map(
                jax.checkpoint(lambda kernel: function((stream, kernel))), kernels, min(tile, len(kernels))
            ),
            streams,
        )
        return jax.tree.map(lambda table: table.swapaxes(1, 2), tables)

    if jnp.issubdtype(streams.dtype, jnp.floating):
        return per_unit(expected, 256 * blocks.masks.shape[1])
    return per_unit(counted, _TILE_ENTRIES), None
