"""Pattern tables: the cycles of a job for every pattern of its kernel bits, and what follows for random bits (SPEC 8).

A stream along positions meets one chunk of the kernel at every mask. Its cycles are a function of at most S bits, so
they are tabulated once for all 2^S patterns; for independent bits of any probabilities, the mean of the job's cycles is
then the multilinear extension of the table, and its second moments are those of the products of its columns.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

LARGEST = 12  # bits of a table; more are sampled
_TILE_BYTES = 1 << 25  # of the largest intermediate result


def pattern_bits(slots: int) -> Int[np.ndarray, "slots patterns"]:
    """Returns every pattern's bits; bit i of its number belongs to slot i."""
    return np.arange(1 << slots) >> np.arange(slots)[:, None] & 1


def pattern_probabilities(weights: Float[Array, "slots filters"]) -> Float[Array, "filters patterns"]:
    """Returns the probability of each pattern of independent bits."""
    patterns = jnp.ones((weights.shape[1], 1), weights.dtype)
    for bit in weights:  # later ones are more significant
        patterns = jnp.concatenate([patterns * (1 - bit)[:, None], patterns * bit[:, None]], 1)
    return patterns


def extend(
    table: Float[Array, "columns patterns"], weights: Float[Array, "slots filters"]
) -> Float[Array, "filters columns"]:
    """Returns the expectations of a table's columns over the patterns, for every filter.

    The patterns' probabilities are products of those of their low and their high bits, and are never all at hand.
    """
    slots = weights.shape[0]
    low = pattern_probabilities(weights[: 2 * slots // 3])
    high = pattern_probabilities(weights[2 * slots // 3 :])
    halves = table.reshape(len(table), high.shape[1], low.shape[1])
    given_high = jnp.einsum("kl,chl->kch", low, halves, precision="highest")
    return jnp.einsum("kch,kh->kc", given_high, high, precision="highest")


def extend_all(
    columns: Callable[[Any], Array],
    tables: Any,
    weights: Float[Array, "units slots filters"],
    width: int,
) -> Float[Array, "units filters columns"]:
    """Extends the tables of all units (chunks), a few at a time, each made to columns by a function when it is needed.

    Args:
        columns: Makes `[columns, patterns]` from a unit's table.
        tables: The units' tables.
        weights: Probabilities of the units' bits.
        width: Columns.
    """
    units, slots, filters = weights.shape
    per_unit = weights.dtype.itemsize * width * ((1 << slots) + filters * (1 << (slots - 2 * slots // 3)))

    @jax.checkpoint
    def unit(arguments: tuple[Array, Array]) -> Array:
        table, bits = arguments
        return extend(columns(jax.tree.map(lambda array: array.astype(bits.dtype), table)), bits)

    return tiled_map(unit, (tables, weights), max(1, min(units, _TILE_BYTES // per_unit)))


def tiled_map(function, arguments, size: int):
    """Maps a function over the leading axis of its arguments, `size` entries at a time; the last ones padded."""
    length = jax.tree.leaves(arguments)[0].shape[0]
    tiles = -(-length // size)
    size = -(-length // tiles)
    missing = tiles * size - length

    def tile(array: Array) -> Array:
        if missing:
            array = jnp.concatenate([array, jnp.zeros((missing, *array.shape[1:]), array.dtype)])
        return array.reshape(tiles, size, *array.shape[1:])

    results = jax.lax.map(jax.vmap(function), jax.tree.map(tile, arguments))
    return jax.tree.map(lambda array: array.reshape(tiles * size, *array.shape[2:])[:length], results)


def product(a: Array, b: Array) -> Array:
    """Returns a * b, rounded: a sum that it is subtracted from must not be fused with it, or 0 would not come out."""
    rounded = a * b
    info = jnp.finfo(rounded.dtype)
    return jax.lax.reduce_precision(rounded, info.nexp, info.nmant)
