"""Blocks: how segments of a stream are cut, and which column of a mask each PE takes (SPEC 4).

The functions take arrays of NumPy and of JAX, traced ones too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int


def cut_blocks(segments: Sequence[tuple[int, int]], lookahead: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Cuts segments into blocks of `lookahead` masks; the last block of a segment may be shorter.

    Returns:
        The first mask of each block with the successor of its last one, and the segment of each block.
    """
    cuts = [
        (first, min(first + lookahead, stop), index)
        for index, (start, stop) in enumerate(segments)
        for first in range(start, stop, lookahead)
    ]
    return [(first, stop) for first, stop, _ in cuts], np.array([index for _, _, index in cuts])


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a stream."""

    masks: Int[np.ndarray, "blocks lookahead"]  # of each block; the stream's length where it has no more
    segment: Int[np.ndarray, " blocks"]  # of each block

    @classmethod
    def of(cls, segments: Sequence[tuple[int, int]], lookahead: int, trim: bool = True) -> "Blocks":
        """Cuts segments into blocks.

        Args:
            segments: Where the stream is cut; non-empty and ascending.
            lookahead: Masks per block.
            trim: Whether blocks have no more room than the longest one needs.
        """
        if trim:
            lookahead = min(lookahead, max(stop - start for start, stop in segments))
        bounds, segment = cut_blocks(segments, lookahead)
        starts, stops = np.array(bounds).T
        masks = starts[:, None] + np.arange(lookahead)
        return cls(np.where(masks < stops[:, None], masks, segments[-1][1]), segment)

    def take(self, stream: Any, axis: int = 0) -> Any:
        """Brings the masks of a stream, along `axis`, into blocks `[blocks, lookahead]` in place of that axis.

        Masks that a block lacks are zeros.
        """
        module = jnp if isinstance(stream, jax.Array) else np
        filler = module.zeros((*stream.shape[:axis], 1, *stream.shape[axis + 1 :]), stream.dtype)
        return module.concatenate([stream, filler], axis)[(slice(None),) * axis + (self.masks,)]


def rotate(columns: Any, intra_balance: bool, axis: int = -3) -> Any:
    """Level-1 balance: PE p takes column (p + l) mod P of mask l.

    Args:
        columns: Blocks, with masks along `axis` and their columns along the next axis.
        intra_balance: Whether there is level-1 balance; else PE p takes column p.
        axis: See `columns`.
    """
    if not intra_balance:
        return columns
    axis %= columns.ndim
    lookahead, pes = columns.shape[axis : axis + 2]
    masks = np.arange(lookahead)[:, None]
    return columns[(slice(None),) * axis + (masks, (np.arange(pes) + masks) % pes)]
