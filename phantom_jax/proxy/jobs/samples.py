"""Sampled kernels, where neither a table nor a chain is small enough (SPEC 8).

Kernels are drawn from their probabilities, always with the same uniform numbers, and their jobs counted exactly: an
unbiased estimate, and exact where probabilities are 0 or 1. Samples are weighed by their likelihood relative to the
probabilities that they were drawn from, which is 1, and whose gradient makes that of the estimate (the score function).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from phantom_jax.arch import Phantom2D
from phantom_jax.proxy.jobs.patterns import bits_by_filter
from phantom_jax.proxy.jobs.traced import job_cycles
from phantom_jax.proxy.moments import Moments
from phantom_jax.proxy.numerics import tiled_map

SAMPLES = 64  # of each kernel
_SMALLEST = 2.0**-23  # uniform number: what is less probable is not drawn, so that no likelihood has a huge gradient
_TILE_ENTRIES = 1 << 23  # of lookahead masks by columns that are counted together


def sampled_moments(
    windows: Shaped[Array, "batch groups positions chunks pes threads"],
    weights: Float[Array, "groups chunks slots filters"],
    axis: str,
    segments: tuple[tuple[int, int], ...],
    cells: Int[np.ndarray, " jobs"],
    arch: Phantom2D,
) -> Moments:
    """Returns the moments of cycles: of jobs that stream along positions, or of filters that stream along chunks.

    Args:
        windows: Activation bits, or their probabilities, which are drawn too.
        weights: Probabilities.
        axis: What streams run along.
        segments: Of the streams; each is a cell if there are several.
        cells: For streams along chunks in one segment, the cell of each position's job, which are added up.
        arch: The accelerator.
    """
    batch, groups, positions, chunks = windows.shape[:4]
    filters = weights.shape[-1]
    if axis == "positions":  # [groups * K/groups * G, 1, P, T] and [groups * G, B, 1, N, P, T]
        bits = bits_by_filter(weights).reshape(-1, 1, arch.pes, arch.threads)
        streams = windows.transpose(1, 3, 0, 2, 4, 5).reshape(groups * chunks, batch, 1, positions, *windows.shape[4:])
        of_unit = np.arange(groups * chunks, dtype=np.int32).reshape(groups, 1, chunks)
        of_unit = np.broadcast_to(of_unit, (groups, filters, chunks)).reshape(-1)
        of_cell = np.ones((1, 1))
        shape = (groups * filters, chunks)
    else:  # [K, G, P, T] and [groups, B, N, G, P, T]
        bits = bits_by_filter(weights).reshape(-1, chunks, arch.pes, arch.threads)
        streams = windows.swapaxes(0, 1)
        of_unit = np.repeat(np.arange(groups, dtype=np.int32), filters)
        of_cell = cells[:, None] == np.arange(cells.max() + 1)
        shape = (groups * filters,)
    length = streams.shape[3]

    def one_unit(arguments: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        chances, stream_index, key_index = arguments
        stream = streams[stream_index]
        weight_key, activation_key = jax.random.split(jax.random.fold_in(jax.random.key(0), key_index))
        kernels, likelihood = _draw(chances, weight_key)
        if jnp.issubdtype(stream.dtype, jnp.floating):
            stream, more = _draw(stream, activation_key)
            likelihood, stream_axis = likelihood + more, 0
        else:
            stream_axis = None
        jobs = jax.vmap(jax.vmap(lambda kernel, masks: job_cycles(kernel, masks, segments, arch), (None, 0)), (None, 0))
        cycles = jax.vmap(jobs, (0, stream_axis))(kernels, stream).astype(chances.dtype)  # [samples, B, N, segments]
        # One of the two has a single cell.
        cycles = jnp.einsum("sbnx,nc->sbcx", cycles, jnp.asarray(of_cell, chances.dtype), precision="highest")
        return _weighted_moments(cycles.reshape(SAMPLES, batch, -1), kernels.sum((1, 2, 3)), likelihood)

    entries = SAMPLES * batch * streams.shape[2] * length * arch.pes
    units = np.arange(len(bits), dtype=np.int32)
    moments = tiled_map(jax.checkpoint(one_unit), (bits, of_unit, units), max(1, _TILE_ENTRIES // entries))
    moments = [array.transpose(*range(2, array.ndim), 1, 0) for array in moments]  # from [units, B, ...]
    mean, covariance, with_load, third = (array.reshape(*array.shape[:-1], *shape) for array in moments)
    least = jnp.zeros(len(mean), weights.dtype)  # what is dispatched at least is part of the samples
    return Moments(mean, covariance, least, with_load, third)


def _draw(chances: Float[Array, "*shape"], key: Array) -> tuple[Array, Array]:
    """Draws bits `[samples, *shape]`, with the logarithm of the samples' likelihood less its own value."""
    uniform = jax.random.uniform(key, (SAMPLES, *chances.shape), np.float32, minval=_SMALLEST)
    bits = uniform < jax.lax.stop_gradient(chances)
    drawn = jnp.where(bits, chances, 1 - chances)
    likelihood = jnp.log(drawn).reshape(SAMPLES, -1).sum(1)
    return bits, likelihood - jax.lax.stop_gradient(likelihood)


def _weighted_moments(
    cycles: Float[Array, "samples batch cells"], loads: Int[Array, " samples"], likelihood: Float[Array, " samples"]
) -> tuple[Array, Array, Array, Array]:
    weight = jax.nn.softmax(likelihood)
    loads = loads.astype(cycles.dtype)
    mean = jnp.tensordot(weight, cycles, 1)
    apart, load_apart = cycles - mean, loads - weight @ loads
    covariance = jnp.einsum("s,sbc,sbd->bcd", weight, apart, apart, precision="highest")
    with_load = jnp.einsum("s,sbc,s->bc", weight, apart, load_apart, precision="highest")
    return mean, covariance, with_load, jnp.tensordot(weight, apart.sum(2) ** 3, 1)
