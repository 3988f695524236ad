"""Streams along chunks: every mask has weight bits of its own, so the selector is a Markov chain (SPEC 8)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import Blocks, rotate
from phantom_jax.proxy.jobs.chain import bins_distribution, count_probabilities
from phantom_jax.proxy.jobs.patterns import bits_by_filter
from phantom_jax.proxy.moments import Moments
from phantom_jax.proxy.numerics import MOST_SKEWNESS, inverse, multiply_along, standard_deviation, tiled_map

_SHIFT = 2.0**-6  # step of a derivative, along the variances of bits
_TILE_UNITS = 128  # PEs' blocks that are stepped together


def effectual_bits(seen: Float[Array, "batch positions *block"], bits: Float[Array, "*block"]) -> Array:
    """Returns the products of activations and weights, with all axes but the first two as one while it multiplies.

    The gradient is a sum over the first two; XLA's CPU code (jaxlib 0.10) can crash in sums over arrays of seven axes.
    """
    return (seen.reshape(*seen.shape[:2], -1) * bits.reshape(-1)).reshape(seen.shape)


def block_survival(
    bits: Float[Array, "*batch blocks lookahead pes threads"], arch: Phantom2D
) -> Float[Array, "*batch blocks cycles"]:
    """Returns the chances of blocks to last more than 1, 2, ... L - 1 cycles, where effectual bits are independent.

    Also small chances are exact to the last bits, as a difference of two that are nearly 1 would not be.
    """
    counts = rotate(count_probabilities(bits), arch.intra_balance)
    *batch, lookahead, pes, width = counts.shape
    entries = jnp.moveaxis(counts.reshape(-1, lookahead, pes, width), (1, 3), (0, 1)).reshape(lookahead, width, -1)
    bins = bins_distribution(entries, arch.selector)
    more = jnp.flip(jnp.cumsum(jnp.flip(bins[:, 2:], 1), 1), 1).reshape(*batch, pes, lookahead - 1)
    some = more[..., 0, :]  # a block without work lasts a cycle too
    for pe in range(1, pes):
        some += more[..., pe, :] * (1 - some)
    return some


def central_moments(survival: Float[Array, "*batch cycles"]) -> tuple[Array, Array, Array]:
    """Returns mean, variance and third central moment of cycles that last more than 1, 2, ... with these chances."""
    mean = 1 + survival.sum(-1)
    apart = jnp.arange(1, survival.shape[-1] + 1, dtype=survival.dtype) - mean[..., None]
    variance = (1 - mean) ** 2 + (survival * (2 * apart + 1)).sum(-1)
    third = (1 - mean) ** 3 + (survival * (3 * apart**2 + 3 * apart + 1)).sum(-1)
    return mean, variance, third


def chunk_cycles(
    windows: Shaped[Array, "batch groups 1 chunks pes threads"],
    weights: Float[Array, "groups chunks slots filters"],
    segments: tuple[tuple[int, int], ...],
    arch: Phantom2D,
) -> Float[Array, "batch filters cycles"]:
    """Returns the chance of each filter to last at most 0, 1, ... cycles in all of its segments, for a single position.

    Every block has bits of its own, so this is exact.
    """
    blocks = Blocks.of(segments, arch.lookahead)
    per_segment = np.bincount(blocks.segment)
    most, lookahead = int(per_segment.max()), blocks.masks.shape[1]
    of_segment = np.full((len(segments), most), len(blocks.segment))  # one beyond the last where there is none
    for segment, count in enumerate(per_segment):
        of_segment[segment, :count] = np.flatnonzero(blocks.segment == segment)
    length = most * lookahead + 1
    earlier = np.arange(length)[:, None] - np.arange(lookahead + 1)  # cycles before a block that lasts 0, 1, ...
    possible = (earlier >= 0).astype(np.int8)

    @jax.checkpoint
    def one_filter(arguments: tuple[Array, Array]) -> Array:
        bits, group = arguments
        effectual = effectual_bits(windows[:, group].astype(bits.dtype), bits)[:, 0]
        seen = blocks.take(jnp.moveaxis(effectual, 1, 0))  # [blocks, L, B, P, T]
        survival = block_survival(jnp.moveaxis(seen, 2, 0), arch)
        chances = -jnp.diff(survival, axis=-1, prepend=1, append=0)
        chances = jnp.pad(chances, ((0, 0), (0, 1), (1, 0)))
        chances = chances.at[:, -1, 0].set(1)  # a block that is not there lasts no cycle
        sums = jnp.zeros((len(chances), len(segments), length), chances.dtype).at[..., 0].set(1)
        for block in of_segment.T:
            sums = jnp.einsum("bsij,bsj->bsi", sums[..., earlier] * possible, chances[:, block], precision="highest")
        within = multiply_along(jnp.cumsum(sums, -1), 1)  # [B, cycles]
        # A filter without weights lasts no cycle, and any other at least one for each block.
        return jnp.where(jnp.arange(length) < most, multiply_along((1 - bits).reshape(-1), 0), within)

    units = len(windows) * len(blocks.segment) * arch.pes
    return jnp.moveaxis(_map_filters(one_filter, weights, units, arch), 0, 1)


def _third_of_sums(
    third: Float[Array, "batch positions blocks"],
    variance: Float[Array, "batch positions blocks"],
    variance_of_sum: Float[Array, "batch blocks"],
) -> Float[Array, "batch blocks"]:
    """Returns the third central moment of the sum over positions, as if a common part made them as alike as they are.

    Of positions whose correlation r stems from a part that all have, as skewed as they are, three deviate together by
    the power 3/2 of r.
    """
    deviation = standard_deviation(variance)
    alone, together = (deviation**3).sum(1), deviation.sum(1) ** 3
    skew = jnp.clip(third.sum(1) * inverse(alone), -MOST_SKEWNESS, MOST_SKEWNESS)
    own, most = variance.sum(1), deviation.sum(1) ** 2
    alike = jnp.clip((variance_of_sum - own) * inverse(most - own), 0, 1)
    return skew * (alone + alike**1.5 * (together - alone))


def _map_filters(one_filter: Callable, weights: Array, units: int, arch: Phantom2D) -> Any:
    """Maps a function of a filter's bits `[G, P, T]` and group over all filters, a few at a time."""
    groups, chunks, _, filters = weights.shape
    per_filter = bits_by_filter(weights).reshape(-1, chunks, arch.pes, arch.threads)
    group_of_filter = np.repeat(np.arange(groups, dtype=np.int32), filters)
    return tiled_map(one_filter, (per_filter, group_of_filter), max(1, _TILE_UNITS // units))


def chunk_moments(
    windows: Shaped[Array, "batch groups positions chunks pes threads"],
    weights: Float[Array, "groups chunks slots filters"],
    segments: tuple[tuple[int, int], ...],
    cells: Int[np.ndarray, " positions"],
    given_load: bool,
    arch: Phantom2D,
) -> Moments:
    """Returns the moments of every filter's cycles, its jobs added up within cells.

    Those of a single position are exact. Positions meet the same weight bits: what their cycles have in common to first
    order, by the derivatives along each bit, is exact too; the rest is taken to be as correlated as the cube of the
    correlation of their numbers of effectual bits, which is what measurements suggest.

    Args:
        windows: Activation bits, or their probabilities.
        weights: Probabilities.
        segments: Of the stream; each is a cell if there are several.
        cells: The cell of each position, where the stream is in one segment.
        given_load: Whether to prepare for `Moments.given_load`.
        arch: The accelerator.
    """
    batch, positions = windows.shape[0], windows.shape[2]
    blocks = Blocks.of(segments, arch.lookahead)
    block_cells = blocks.segment + cells[:, None]  # [N, blocks]; one of the two is 0
    in_cell = np.stack([block_cells == index for index in range(block_cells.max() + 1)])  # [cells, N, blocks]
    in_cell = jnp.asarray(in_cell, weights.dtype)
    in_cell_blocks = in_cell.sum((1, 2))

    def in_blocks(stream: Array) -> Array:  # [B, N, G, P, T] -> [B, N, blocks, L, P, T]
        return jnp.moveaxis(blocks.take(jnp.moveaxis(stream, 2, 0)), (2, 3), (0, 1))

    def total(array: Array) -> Array:  # [B, N, blocks] -> [B, cells]
        return jnp.einsum("bnx,cnx->bc", array, in_cell, precision="highest")

    def expected(effectual: Array) -> tuple[Array, tuple[Array, Array]]:
        mean, variance, third = central_moments(block_survival(effectual, arch))  # [B, N, blocks]
        return mean, (variance, third)

    def single(seen: Array, bits: Array, spread: Array) -> tuple[Array, ...]:
        mean, (variance, third) = expected(effectual_bits(seen, bits))
        with_load = jnp.zeros_like(mean)
        if given_load:  # the covariance with a sum of independent bits is the derivative along their variances
            with_load = (expected(effectual_bits(seen, bits + _SHIFT * spread))[0] - mean) / _SHIFT
        return mean, variance[:, None], with_load, third

    def several(seen: Array, bits: Array, spread: Array) -> tuple[Array, ...]:
        mean, pull, (variance, third) = jax.vjp(expected, effectual_bits(seen, bits), has_aux=True)
        # The covariance with one of the independent bits is the derivative times the bit's variance.
        slopes = seen * pull(jnp.ones_like(mean))[0]
        with_load = jnp.einsum("bnxlpt,xlpt->bnx", slopes, spread, precision="highest")
        alike = jnp.einsum("bnxlpt,bmxlpt,xlpt->bnmx", seen, seen, spread, precision="highest")
        linear = jnp.einsum("bnxlpt,bmxlpt,xlpt->bnmx", slopes, slopes, spread, precision="highest")
        own_alike, own_linear = (jnp.diagonal(array, axis1=1, axis2=2).swapaxes(1, 2) for array in (alike, linear))
        scale = inverse(standard_deviation(own_alike))  # [B, N, blocks]
        rest = standard_deviation(jnp.maximum(variance - own_linear, 0))
        alike = alike * scale[:, :, None] * scale[:, None]
        return mean, linear + rest[:, :, None] * rest[:, None] * alike**3, with_load, third

    @jax.checkpoint
    def one_filter(arguments: tuple[Array, Array]) -> tuple[Array, ...]:
        bits, group = arguments
        seen = in_blocks(windows[:, group].astype(bits.dtype))
        moments = single if positions == 1 else several
        mean, covariance, with_load, third = moments(seen, blocks.take(bits), blocks.take(bits * (1 - bits)))
        variance = jnp.diagonal(covariance, axis1=1, axis2=2).swapaxes(1, 2)
        by_block = jnp.einsum("bnmx,cnx,dmx->bcdx", covariance, in_cell, in_cell, precision="highest")
        third = _third_of_sums(third, jnp.maximum(variance, 0), by_block.sum((1, 2))).sum(1)
        # A filter without weights is not dispatched: it would have lasted a cycle for each block.
        absent = multiply_along((1 - bits).reshape(-1), 0)
        lasted = total(mean)
        product = in_cell_blocks[:, None] * in_cell_blocks
        beyond = in_cell_blocks[:, None] * (lasted - in_cell_blocks)[:, None]
        return (
            lasted - absent * in_cell_blocks,
            by_block.sum(3) + absent * ((1 - absent) * product + beyond + beyond.swapaxes(1, 2)),
            total(with_load) + absent * bits.sum() * in_cell_blocks,
            third,
        )

    units = batch * positions * len(blocks.segment) * arch.pes
    moments = _map_filters(one_filter, weights, units, arch)  # [K, B, ...]
    mean, covariance, with_load, third = (array.transpose(*range(2, array.ndim), 1, 0) for array in moments)
    return Moments(mean, covariance, in_cell_blocks, with_load, third)
