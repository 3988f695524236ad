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

from phantom_jax.proxy.moments import Moments
from phantom_jax.proxy.numerics import rounded_product, tiled_map

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


def bits_by_filter(weights: Float[Array, "groups chunks slots filters"]) -> Float[Array, "all_filters chunks slots"]:
    """Brings bits into the order of filters, those of a group being consecutive."""
    groups, chunks, slots, filters = weights.shape
    return weights.transpose(0, 3, 1, 2).reshape(groups * filters, chunks, slots)


def extend(
    table: Float[Array, "columns patterns"], weights: Float[Array, "slots filters"]
) -> Float[Array, "filters columns"]:
    """Returns the expectations of a table's columns over the patterns, for every filter.

    The patterns' probabilities are products of those of their low and their high bits, and are never all in memory.
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
    low, high = 1 << 2 * slots // 3, 1 << slots - 2 * slots // 3
    per_unit = weights.dtype.itemsize * (width * ((1 << slots) + filters * high) + filters * low)

    @jax.checkpoint
    def unit(arguments: Any) -> Array:
        table, bits = arguments
        return extend(columns(jax.tree.map(lambda array: array.astype(bits.dtype), table)), bits)

    return tiled_map(unit, (tables, weights), max(1, min(units, _TILE_BYTES // per_unit)))


def pattern_moments(
    table: Float[Array, "groups chunks batch segments patterns"],
    spread: Float[Array, "groups chunks batch segments patterns"] | None,
    weights: Float[Array, "groups chunks slots filters"],
    least: Int[np.ndarray, " segments"],
    given_load: bool,
) -> Moments:
    """Returns the moments of jobs from their tables.

    Args:
        table: Cycles of each segment, or their means.
        spread: Their variances, where activations are probabilities.
        weights: Probabilities of the bits that are occupied.
        least: Cycles of each segment if a job has any weight.
        given_load: Whether to prepare for `Moments.given_load`, or else for the third moment.
    """
    groups, chunks, batch, cells, _ = table.shape
    slots, filters = weights.shape[2:]
    pairs = [(a, b) for a in range(cells) for b in range(a, cells)]
    first, second = np.array(pairs).T
    ones = pattern_bits(slots).sum(0)
    # Cubes of cycles would leave the range of 32 bits.
    scale = 1 / jnp.maximum(table.sum(3).max(), 1).astype(weights.dtype)

    def columns(arrays: tuple[Array, Array | None]) -> Array:
        table, spread = arrays  # [B, segments, patterns]
        products = rounded_product(table[:, first], table[:, second])
        if spread is not None:
            products += spread[:, first] * jnp.asarray(first == second, table.dtype)[:, None]
        if given_load:
            more = table * jnp.asarray(ones, table.dtype)
        else:
            total = table.sum(1, keepdims=True) * scale
            more = total**3
            if spread is not None:
                more += 3 * total * spread.sum(1, keepdims=True) * scale**2
        every = jnp.concatenate([table, products, more], 1)
        return every.reshape(-1, every.shape[-1])

    ends = np.cumsum([cells, len(pairs), cells if given_load else 1])
    units = jax.tree.map(lambda array: array.reshape(groups * chunks, *array.shape[2:]), (table, spread, weights))
    extended = extend_all(columns, units[:2], units[2], batch * int(ends[-1]))
    extended = extended.reshape(groups, chunks, filters, batch, -1).transpose(4, 3, 0, 2, 1)
    extended = extended.reshape(-1, batch, groups * filters, chunks)
    mean, products, more = jnp.split(extended, ends[:-1])
    square = np.zeros((cells, cells), int)
    square[first, second] = square[second, first] = np.arange(len(pairs))
    covariance = (products - rounded_product(mean[first], mean[second]))[square]
    if given_load:
        with_load, third = more - rounded_product(mean, bits_by_filter(weights).sum(2)), None
    else:
        total = mean.sum(0) * scale
        twice = jnp.asarray(np.where(first == second, 1, 2), weights.dtype)
        total_square = jnp.tensordot(twice, products, 1) * scale**2
        with_load, third = None, (more[0] - 3 * total * total_square + 2 * total**3) / scale**3
    return Moments(mean, covariance, jnp.asarray(least, weights.dtype), with_load, third)
