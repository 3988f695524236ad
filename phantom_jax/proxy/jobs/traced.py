"""The exact engine inside of traced code: cycles of jobs whose bits are JAX arrays (SPEC 3 and 4).

Slower than the engine of `simulate`, but it goes through `jit`, `vmap` and every backend. It serves where activations
are traced, and where kernels are sampled.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import Blocks, rotate, selector_bins
from phantom_jax.layer import Layer
from phantom_jax.windows import kernel_index, tap_slices


def windows(layer: Layer, arch: Phantom2D) -> Array:
    """Returns the activation windows of a layer, `[B, groups, N, G, P, T]`, of bits or of probabilities."""
    values = jnp.asarray(layer.activations)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values != 0
    batch, channels = values.shape[0], values.shape[-1]
    if layer.is_conv:
        zero = jnp.zeros((), values.dtype)
        inside = zip(layer.padding, layer.input_dilation, strict=True)
        values = jax.lax.pad(
            values, zero, [(0, 0, 0), *((low, high, step - 1) for (low, high), step in inside), (0, 0, 0)]
        )
        kernel = layer.weights.shape[:-2]
        taps = [tap_slices(layer, kernel_index(kernel, tap)) for tap in range(int(np.prod(kernel)))]
        values = jnp.stack([values[:, *slices].reshape(batch, -1, channels) for slices in taps], -1)
    else:
        values = values.reshape(batch, -1, channels, 1)
    groups, chunks = layer.feature_group_count, -(-layer.reduction // arch.slots)
    values = values.reshape(batch, values.shape[1], groups, layer.reduction).swapaxes(1, 2)
    values = jnp.pad(values, [(0, 0)] * 3 + [(0, chunks * arch.slots - layer.reduction)])
    return values.reshape(*values.shape[:3], chunks, arch.pes, arch.threads)


def job_cycles(
    kernel: Bool[Array, "masks pes threads"],
    stream: Bool[Array, "length pes threads"],
    segments: tuple[tuple[int, int], ...],
    arch: Phantom2D,
) -> Int[Array, " segments"]:
    """Returns the cycles of one job in each of its segments.

    Args:
        kernel: Kernel bits of each mask, or of all masks alike if there is one.
        stream: Window bits of each mask.
        segments: Where the stream is cut.
        arch: The accelerator.
    """
    dtype = jnp.uint8 if arch.threads < 256 else jnp.int32
    blocks = Blocks.of(segments, arch.lookahead)
    counts = blocks.take((kernel & stream).sum(2, dtype=dtype))  # [blocks, L, P]
    taken = rotate(counts[..., None], arch.intra_balance)[..., 0]
    bins = jax.vmap(jax.vmap(selector_bins(arch.selector, arch.threads), in_axes=1))(taken)
    lasts = jnp.maximum(bins.max(1), 1)
    return jax.ops.segment_sum(lasts, blocks.segment, len(segments)) * kernel.any()
