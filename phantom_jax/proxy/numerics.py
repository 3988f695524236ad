"""Numerics of the proxy: functions whose values and gradients stay finite, bent Gaussians, maps over tiles (SPEC 8)."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from phantom_jax.promotion import promotion

MOST_SKEWNESS = 2.0
_TINY = 1e-9  # what does not exceed it counts as 0: its inverse would leave the range of 32 bits


def multiply_along(array: Array, axis: int) -> Array:
    """Returns the product along an axis, by halves: XLA makes better code of it, and its gradient, than of `prod`."""
    array = jnp.moveaxis(array, axis, 0)
    while len(array) > 1:
        half = len(array) // 2
        pairs = array[:half] * array[half : 2 * half]
        array = pairs if len(array) % 2 == 0 else jnp.concatenate([pairs, array[2 * half :]])
    return array[0]


def inverse(values: Array) -> Array:
    """Returns 1 / values, and 0 where they are 0 or tiny."""
    some = values > _TINY
    return jnp.where(some, 1 / jnp.where(some, values, 1), 0)


def standard_deviation(variance: Array) -> Array:
    """Returns the square root; where the variance is 0 or tiny, it and its gradient are 0."""
    positive = variance > _TINY
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)


def bend(gaussian: Array, skewness: Array) -> Array:
    """Returns values of mean 0, variance 1 and this skewness from standard Gaussian ones."""
    third = gaussian / 6 - skewness / 36
    return 2 * third * (3 + 3 * skewness * third + (skewness * third) ** 2)


def unbend(values: Array, skewness: Array) -> Array:
    """Returns the standard Gaussian values that `bend` takes to these; below what it can give, still monotone."""
    root = jnp.exp(jnp.log(jnp.maximum(1 + skewness * values / 2, 1e-3)) / 3)  # much faster than a cube root
    return 3 * values / (root**2 + root + 1) + skewness / 6


def skewness(third: Array, variance: Array) -> Array:
    """Returns the skewness from the third central moment, no larger than the transformation can serve."""
    positive = variance > _TINY
    ratio = jnp.where(positive, third, 0) / jnp.where(positive, variance, 1) ** 1.5
    return jnp.clip(ratio, -MOST_SKEWNESS, MOST_SKEWNESS)


def below_chance(distance: Array, deviation: Array, skew: Array | None = None) -> Array:
    """Returns the probability that a part of mean 0 stays below; of one without variance, 0 or 1."""
    spread = deviation > 0
    values = distance / jnp.where(spread, deviation, 1)
    chance = 0.5 + 0.5 * jax.lax.erf(math.sqrt(0.5) * (values if skew is None else unbend(values, skew)))
    return jnp.where(spread, chance, (distance >= 0).astype(distance.dtype))


def tiled_map(function: Callable[[Any], Any], arguments: Any, size: int) -> Any:
    """Maps a function over the leading axis of its arguments, `size` entries at a time; the last ones padded."""
    arguments = jax.tree.map(jnp.asarray, arguments)
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


def rounded_product(a: Array, b: Array) -> Array:
    """Returns a * b, rounded: a sum that it is subtracted from must not be fused with it, or 0 would not come out."""
    rounded = a * b
    info = jnp.finfo(rounded.dtype)
    return jax.lax.reduce_precision(rounded, info.nexp, info.nmant)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest(values: Array, axis: int) -> Array:
    """Returns the maximum along an axis; the largest values share its gradient.

    That of `jnp.max` is NaN where XLA computes the values once more, rounds them otherwise, and finds none that equals
    the maximum.
    """
    return values.max(axis)


@largest.defjvp
@promotion()
def _largest_jvp(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (values,), (tangent,) = primals, tangents
    found = values.max(axis)
    first = jnp.expand_dims(values.argmax(axis), axis) == jax.lax.broadcasted_iota(jnp.int32, values.shape, axis)
    is_largest = (values == jnp.expand_dims(found, axis)) | first
    shares = is_largest / is_largest.sum(axis, keepdims=True)
    return found, (shares.astype(tangent.dtype) * tangent).sum(axis)
