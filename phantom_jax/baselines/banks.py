"""SCNN's accumulator banks: what steps last whose products fall into the same bank (SPEC 9).

Operands wait in *queues*; only activations and weights of the same queue multiply. Within a queue, each operand has an
*owner*: the PE of an activation, the filter group of a weight. A *hand* is what one side brings to a step: the next few
operands of an owner.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int64, UInt8

from phantom_jax.exact import batches, compiled, run_tiles

MOST_PRODUCTS = 64  # of a step; the kernel compares each with each
BANK_VALUES = 32  # that the hash of banks can take
_TILE = (16, 128, 64)  # queues, hands of activations, hands of weights per call


@dataclasses.dataclass(frozen=True)
class Hands:
    """Operands of one side, by hands in the order of queues, then owners, then as queued."""

    queue: Int64[np.ndarray, " hands"]
    owner: Int64[np.ndarray, " hands"]
    operands: Int[np.ndarray, "hands size axes"]  # coordinates; of weights, then the filter; missing ones far outside


@dataclasses.dataclass(frozen=True)
class _Tile:
    """Hands of one queue that are multiplied each with each."""

    queue: int
    activations: slice
    weights: slice


def deal(
    queue: Int64[np.ndarray, " operands"],
    owner: Int64[np.ndarray, " operands"],
    at: Int64[np.ndarray, "operands axes"],
    size: int,
    missing: int,
) -> Hands:
    """Deals operands, given as they are queued, into hands.

    Args:
        queue: The queue of each.
        owner: The owner of each.
        at: What the kernel is to know of each.
        size: Operands of a hand; the last of an owner has fewer.
        missing: Coordinate of what a hand lacks.
    """
    order = np.lexsort((owner, queue))
    queue, owner, at = queue[order], owner[order], at[order]
    new = np.flatnonzero(np.diff(queue, prepend=-1) | np.diff(owner, prepend=-1))
    lengths = np.diff(new, append=len(queue))
    rank = np.arange(len(queue)) - np.repeat(new, lengths)
    hands = -(-lengths // size)
    first = np.repeat(np.cumsum(hands) - hands, lengths)
    operands = np.full((int(hands.sum()), size, at.shape[1]), missing, np.int32)
    operands[first + rank // size, rank % size] = at
    return Hands(np.repeat(queue[new], hands), np.repeat(owner[new], hands), operands)


def step_cycles(
    activations: Hands,
    weights: Hands,
    counts: tuple[int, int, int],
    plane: tuple[int, int],
    banks: int,
) -> Int64[np.ndarray, "queues activation_owners weight_owners"]:
    """Returns the cycles of all steps, per queue and pair of owners.

    A step lasts as many cycles as the fullest bank gets products, and one at least. Products outside the plane take
    no bank.

    Args:
        activations: Their coordinates, over the strides.
        weights: Their coordinates, over the strides, and filters.
        counts: Queues, owners of activations, owners of weights.
        plane: The output plane.
        banks: Accumulator banks.
    """
    cycles = np.zeros(counts, np.int64)
    shape = np.array(plane, np.int32)

    def padded(hands: Hands, parts: list[slice], length: int) -> np.ndarray:
        filled = np.zeros((len(parts), length, *hands.operands.shape[1:]), np.int32)
        for tile, part in zip(filled, parts, strict=True):
            tile[: part.stop - part.start] = hands.operands[part]
        return filled

    def fill(tiles: list[_Tile]) -> tuple[np.ndarray, ...]:
        rows = [tile.activations for tile in tiles] + [slice(0, 0)] * (_TILE[0] - len(tiles))
        cols = [tile.weights for tile in tiles] + [slice(0, 0)] * (_TILE[0] - len(tiles))
        return padded(activations, rows, _TILE[1]), padded(weights, cols, _TILE[2]), shape

    def finish(tiles: list[_Tile], steps: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        return [(tile.queue, *_by_owner(steps[index], activations, weights, tile)) for index, tile in enumerate(tiles)]

    kernel = compiled(_tile_cycles, banks=banks)
    for results in run_tiles(kernel, batches(_tiles(activations, weights), _TILE[0]), fill, finish):
        for queue, rows, cols, summed in results:
            cycles[queue, rows[:, None], cols] += summed
    return cycles


def _tiles(activations: Hands, weights: Hands) -> Iterator[_Tile]:
    queues = np.intersect1d(activations.queue, weights.queue)
    bounds = [np.searchsorted(side.queue, (queues, queues + 1)).T.tolist() for side in (activations, weights)]
    for queue, (row, last_row), (col, last_col) in zip(queues.tolist(), *bounds, strict=True):
        for start in range(row, last_row, _TILE[1]):
            for first in range(col, last_col, _TILE[2]):
                rows = slice(start, min(start + _TILE[1], last_row))
                yield _Tile(queue, rows, slice(first, min(first + _TILE[2], last_col)))


def _by_owner(
    steps: UInt8[np.ndarray, "rows cols"], activations: Hands, weights: Hands, tile: _Tile
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the owners of both sides that a tile has, and the cycles of each pair."""
    rows, cols = activations.owner[tile.activations], weights.owner[tile.weights]
    first_rows, first_cols = (np.flatnonzero(np.diff(side, prepend=-1)) for side in (rows, cols))
    summed = np.add.reduceat(steps[: len(rows), : len(cols)], first_rows, axis=0, dtype=np.int64)
    return rows[first_rows], cols[first_cols], np.add.reduceat(summed, first_cols, axis=1)


def _tile_cycles(
    activations: Int[Array, "queues rows activations 2"],
    weights: Int[Array, "queues cols weights 3"],
    plane: Int[Array, "2"],
    *,
    banks: int,
) -> UInt8[Array, "queues rows cols"]:
    """Returns the cycles of the step of each pair of hands."""
    per_step = activations.shape[2], weights.shape[2]
    chosen: list[Any] = []
    for number, (a, f) in enumerate(itertools.product(*map(range, per_step))):
        w = activations[:, :, None, a, 0] - weights[:, None, :, f, 0]
        h = activations[:, :, None, a, 1] - weights[:, None, :, f, 1]
        k = weights[:, None, :, f, 2]
        bank = (((k & 4) << 2) ^ ((w & 2) << 3) ^ ((h & 2) << 3)) + ((w & 1) << 3) + ((h & 1) << 2) + (k & 3)
        bank = bank % banks if banks < BANK_VALUES else bank
        is_inside = (w >= 0) & (w < plane[0]) & (h >= 0) & (h < plane[1])
        chosen.append(jnp.where(is_inside, bank, BANK_VALUES + number).astype(jnp.uint8))  # outside: a bank of its own
    fullest = jnp.ones_like(chosen[0])
    for number, bank in enumerate(chosen):
        same = sum(((bank == other).astype(jnp.uint8) for other in chosen[number + 1 :]), jnp.ones_like(bank))
        fullest = jnp.maximum(fullest, same)
    return fullest
