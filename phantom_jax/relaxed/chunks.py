"""Streams along chunks: every mask has weight bits of its own, so the selector is a Markov chain (SPEC 8)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phantom_jax.arch import Phantom2D
from phantom_jax.relaxed.chain import bins_distribution, count_probabilities
from phantom_jax.relaxed.moments import Moments
from phantom_jax.relaxed.patterns import tiled_map
from phantom_jax.relaxed.rounds import standard_deviation

_TILE_UNITS = 128  # PEs' blocks that are stepped together


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A stream's blocks: which mask each takes in turn, and which segment each belongs to."""

    masks: Int[np.ndarray, "blocks lookahead"]  # the stream's length where a block has no more
    segment: Int[np.ndarray, " blocks"]

    @classmethod
    def of(cls, segments: tuple[tuple[int, int], ...], lookahead: int) -> "Blocks":
        """Cuts segments into blocks; none is given more room than the longest one needs."""
        lookahead = min(lookahead, max(stop - start for start, stop in segments))
        masks, segment = [], []
        for index, (start, stop) in enumerate(segments):
            for first in range(start, stop, lookahead):
                block = np.arange(first, first + lookahead)
                masks.append(np.where(block < stop, block, segments[-1][1]))
                segment.append(index)
        return cls(np.stack(masks), np.array(segment))

    def take(self, stream: Array, fill: float = 0) -> Array:
        """Brings a stream `[length, ...]` into blocks `[blocks, lookahead, ...]`."""
        filler = jnp.full((1, *stream.shape[1:]), fill, stream.dtype)
        return jnp.concatenate([stream, filler])[self.masks]


def rotate(columns: Array, intra_balance: bool) -> Array:
    """Level-1 balance: from the columns `[..., lookahead, columns, *]` of masks to what each PE takes."""
    lookahead, pes = columns.shape[-3:-1]
    if not intra_balance:
        return columns
    taken = (np.arange(pes) + np.arange(lookahead)[:, None]) % pes
    return columns[..., np.arange(lookahead)[:, None], taken, :]


def block_moments(
    bits: Float[Array, "*batch blocks lookahead pes threads"], arch: Phantom2D
) -> tuple[Float[Array, "*batch blocks"], Float[Array, "*batch blocks"]]:
    """Returns mean and variance of the cycles of blocks whose effectual bits are independent."""
    counts = rotate(count_probabilities(bits), arch.intra_balance)
    *batch, lookahead, pes, width = counts.shape
    entries = jnp.moveaxis(counts.reshape(-1, lookahead, pes, width), (1, 3), (0, 1)).reshape(lookahead, width, -1)
    bins = bins_distribution(entries, arch.selector)
    below = jnp.cumsum(bins, 1)[:, :-1].reshape(*batch, pes, lookahead).prod(-2)  # all PEs within 0, 1, ... bins
    # A block lasts at least a cycle, so the chance that it lasts longer than none is 1.
    longer = jnp.concatenate([jnp.ones_like(below[..., :1]), 1 - below[..., 1:]], -1)
    mean = longer.sum(-1)
    # Sum of (2t + 1 - 2 mean + ...) would cancel; around the mean it does not.
    lasts = jnp.concatenate([below[..., 1:], jnp.ones_like(below[..., :1])], -1)
    lasts = jnp.diff(lasts, axis=-1, prepend=0)  # chance of 1, 2, ... cycles
    cycles = jnp.arange(1, lookahead + 1, dtype=mean.dtype)
    variance = (lasts * (cycles - mean[..., None]) ** 2).sum(-1)
    return mean, variance


def chunk_moments(
    windows: Float[Array, "batch groups positions chunks pes threads"],
    weights: Float[Array, "groups chunks slots filters"],
    segments: tuple[tuple[int, int], ...],
    cells: Int[np.ndarray, " positions"] | None,
    arch: Phantom2D,
) -> Moments:
    """Returns the moments of every filter's cycles, its jobs added up within cells.

    Covariances of positions, which meet the same weight bits, are those of sums of effectual bits with the same
    variance as the cycles, block by block.

    Args:
        windows: Activation bits, or their probabilities.
        weights: Probabilities.
        segments: Of the stream; each is a cell if there are several.
        cells: The cell of each position, where the stream is in one segment.
        arch: The accelerator.
    """
    batch, groups, positions, chunks = windows.shape[:4]
    filters = weights.shape[-1]
    blocks = Blocks.of(segments, arch.lookahead)
    if len(segments) > 1:
        cell = np.broadcast_to(blocks.segment, (positions, len(blocks.segment)))
    else:
        assert cells is not None
        cell = np.broadcast_to(cells[:, None], (positions, len(blocks.segment)))
    count = int(cell.max()) + 1
    in_cell = np.stack([cell == index for index in range(count)]).astype(weights.dtype)  # [cells, N, blocks]
    in_cell_blocks = jnp.asarray(in_cell.sum((1, 2)))
    per_filter = weights.transpose(0, 3, 1, 2).reshape(groups * filters, chunks, arch.pes, arch.threads)

    @jax.checkpoint
    def one_filter(arguments: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        bits, group = arguments
        seen = windows[:, group].astype(bits.dtype)  # [B, N, G, P, T]
        effectual = blocks.take(jnp.moveaxis(seen * bits, 2, 0))  # [blocks, L, B, N, P, T]
        mean, variance = block_moments(jnp.moveaxis(effectual, (2, 3), (0, 1)), arch)  # [B, N, blocks]
        spread = bits * (1 - bits)
        by_block = blocks.take(jnp.moveaxis(seen**2 * spread, 2, 0)).sum((1, 4, 5))  # [blocks, B, N]
        by_block = jnp.moveaxis(by_block, 0, 2)
        some = (by_block > 0) & (variance > 0)
        slope = jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1) / jnp.where(some, by_block, 1)), 0)
        # Cycles that a weight bit brings to each cell: [B, cells, blocks, L, P, T].
        seen_blocks = jnp.moveaxis(blocks.take(jnp.moveaxis(seen, 2, 0)), (2, 3), (0, 1))
        brings = jnp.einsum("bnx,cnx,bnxlpt->bcxlpt", slope, in_cell, seen_blocks, precision="highest")
        weighed = brings * blocks.take(spread)
        covariance = jnp.einsum("bcxlpt,bdxlpt->bcd", weighed, brings, precision="highest")
        # A filter without weights is not dispatched: it would have lasted a cycle for each block.
        absent = (1 - bits).prod()
        total = jnp.einsum("bnx,cnx->bc", mean, in_cell, precision="highest")
        beyond = total - in_cell_blocks
        product = in_cell_blocks[:, None] * in_cell_blocks
        cross = in_cell_blocks[:, None] * beyond[:, None, :]
        covariance += absent * ((1 - absent) * product + cross + cross.swapaxes(1, 2))
        with_load = weighed.sum((2, 3, 4, 5)) + absent * bits.sum() * in_cell_blocks
        return total - absent * in_cell_blocks, covariance, with_load

    units = batch * positions * len(blocks.segment) * arch.pes
    moments = tiled_map(
        one_filter, (per_filter, np.repeat(np.arange(groups), filters)), max(1, _TILE_UNITS // units)
    )
    return Moments(*(jnp.moveaxis(array, 0, 1) for array in moments))
