"""Expected cycles of a round: the expected maximum over its cores (SPEC 8.3).

A core's time has a mean, a part of its spread that all cores of a column share because they run the same filter's bits,
and a part of its own. Each is a Gaussian bent to the skewness that it should have, by the transformation of Wilson and
Hilferty (1931), which makes it nearly a gamma variable. The maximum's distribution is the product of what the cores'
distributions are given the shared parts; its mean is an integral by quadrature. As the variances vanish it becomes the
hard maximum.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(24)
_MOST_SKEWNESS = 2.0
_REACH = 5.0  # standard deviations around a core's mean that the integral spans
_SHARED, _SHARED_WEIGHTS = np.polynomial.hermite_e.hermegauss(5)  # of a shared part, in standard deviations
_SHARED_WEIGHTS /= _SHARED_WEIGHTS.sum()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CoreTimes:
    """Times of the cores that run a filter: cores of the rows of a column, one where rows take other filters."""

    mean: Float[Array, "*batch filters rows"]
    shared: Float[Array, "*batch filters rows"]  # standard deviation of what the rows have in common
    variance: Float[Array, "*batch filters rows"]  # of what each has of its own
    skewness: Float[Array, "*batch filters"]  # of what they have in common, or of a single row


def multiply_along(array: Array, axis: int) -> Array:
    """Returns the product along an axis, by halves: XLA makes better code of it, and its gradient, than of `prod`."""
    array = jnp.moveaxis(array, axis, 0)
    while len(array) > 1:
        half = len(array) // 2
        pairs = array[:half] * array[half : 2 * half]
        array = pairs if len(array) % 2 == 0 else jnp.concatenate([pairs, array[2 * half :]])
    return array[0]


def standard_deviation(variance: Array) -> Array:
    """Returns the square root; where the variance is 0, so is its gradient."""
    positive = variance > 0
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
    positive = variance > 0
    ratio = jnp.where(positive, third, 0) / jnp.where(positive, variance, 1) ** 1.5
    return jnp.clip(ratio, -_MOST_SKEWNESS, _MOST_SKEWNESS)


def expected_rounds(times: CoreTimes, per_round: int) -> Float[Array, "*batch rounds"]:
    """Returns the expected cycles of each round, which runs `per_round` consecutive filters."""
    filters, rows = times.mean.shape[-2:]
    if per_round == 1 and rows == 1:
        return times.mean[..., 0]
    per_round = min(per_round, filters)
    rounds = -(-filters // per_round)
    missing = rounds * per_round - filters
    present = jnp.asarray((np.arange(rounds * per_round) < filters).reshape(rounds, per_round))
    batch = times.mean.shape[:-2]

    def cut(array: Array) -> Array:
        array = jnp.pad(array, [(0, 0)] * len(batch) + [(0, missing)] + [(0, 0)] * (array.ndim - len(batch) - 1))
        return array.reshape(-1, rounds, per_round, *array.shape[len(batch) + 1 :])

    expected = jax.vmap(jax.vmap(_expected_maximum), (0, None))(jax.tree.map(cut, times), present)
    return expected.reshape(*batch, rounds)


def expected_rounds_of(within: Float[Array, "batch filters cycles"], per_round: int) -> Float[Array, "batch rounds"]:
    """Returns the expected cycles of each round from the chances of filters to last at most 0, 1, ... cycles."""
    batch, filters, length = within.shape
    missing = -filters % per_round
    rounds = jnp.pad(within, ((0, 0), (0, missing), (0, 0)), constant_values=1).reshape(batch, -1, per_round, length)
    return (1 - multiply_along(rounds, 2)).sum(2)


def _expected_maximum(times: CoreTimes, present: Bool[Array, " filters"]) -> Float[Array, ""]:
    """Returns the expected maximum over the cores of one round, without those of filters that are not there."""
    mean, skew = times.mean, times.skewness[:, None]
    dtype = mean.dtype
    own = standard_deviation(times.variance)
    spread = standard_deviation(times.variance + times.shared**2)
    there = present[:, None]
    low = jnp.where(there, mean + spread * bend(jnp.asarray(-_REACH, dtype), skew), -jnp.inf).max()
    high = jnp.where(there, mean + spread * bend(jnp.asarray(_REACH, dtype), skew), -jnp.inf).max()
    at = low + (high - low) * jnp.asarray((_NODES + 1) / 2, dtype)  # [nodes]
    distance = at - mean[..., None]  # [filters, rows, nodes]
    if mean.shape[1] == 1:
        below = _below(distance, own[..., None], skew[..., None])[:, 0]
    else:
        shared = times.shared * bend(jnp.asarray(_SHARED, dtype)[:, None, None], skew)  # [shared, filters, rows]
        given_shared = _below(distance - shared[..., None], own[..., None], jnp.zeros((), dtype))
        below = jnp.tensordot(jnp.asarray(_SHARED_WEIGHTS, dtype), multiply_along(given_shared, 2), 1)
    below = multiply_along(jnp.where(there, below, 1), 0)
    return high - (high - low) * (jnp.asarray(_NODE_WEIGHTS / 2, dtype) * below).sum()


def _below(distance: Array, deviation: Array, skew: Array) -> Array:
    """Returns the probability that a part of mean 0 stays below; of one without variance, 0 or 1."""
    spread = deviation > 0
    chance = 0.5 + 0.5 * jax.lax.erf(math.sqrt(0.5) * unbend(distance / jnp.where(spread, deviation, 1), skew))
    return jnp.where(spread, chance, (distance >= 0).astype(distance.dtype))
