"""Expected cycles of a round: the expected maximum over its cores (SPEC 8.3).

Core times are taken as Gaussian: a mean, a part of the spread that all cores of a column share because they run the
same filter's bits, and a part of their own. The maximum's distribution is the product of what the cores' distributions
are given the shared parts; its mean is an integral by quadrature. As the variances vanish it becomes the hard maximum.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)
_REACH = 5.0  # standard deviations around a core's mean that the integral spans
_SHARED = np.linspace(-3.6, 3.6, 13)  # of a shared part, in standard deviations
_SHARED_WEIGHTS = np.exp(-(_SHARED**2) / 2) / np.exp(-(_SHARED**2) / 2).sum()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CoreTimes:
    """Times of the cores that run a filter: cores of the rows of a column, one where rows take other filters."""

    mean: Float[Array, "*batch filters rows"]
    shared: Float[Array, "*batch filters rows"]  # standard deviation of what the rows have in common
    variance: Float[Array, "*batch filters rows"]  # of what each has of its own


def standard_deviation(variance: Array) -> Array:
    """Returns the square root; where the variance is 0, so is its gradient."""
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)


def expected_rounds(times: CoreTimes, per_round: int) -> Float[Array, "*batch"]:
    """Returns the expected cycles of all rounds, each of `per_round` consecutive filters."""
    filters, rows = times.mean.shape[-2:]
    if per_round == 1 and rows == 1:
        return times.mean.sum((-2, -1))
    per_round = min(per_round, filters)
    rounds = -(-filters // per_round)
    missing = rounds * per_round - filters
    present = jnp.asarray((np.arange(rounds * per_round) < filters).reshape(rounds, per_round))
    batch = times.mean.shape[:-2]

    def cut(array: Array) -> Array:
        array = jnp.pad(array, [(0, 0)] * len(batch) + [(0, missing), (0, 0)])
        return array.reshape(-1, rounds, per_round, rows)

    per_image = jax.checkpoint(jax.vmap(_expected_maximum))
    expected = jax.lax.map(lambda cores: per_image(*cores, present), jax.tree.map(cut, tuple(_fields(times))))
    return expected.sum(1).reshape(batch)


def _fields(times: CoreTimes) -> list[Array]:
    return [times.mean, times.shared, times.variance]


def _expected_maximum(
    mean: Float[Array, "filters rows"],
    shared: Float[Array, "filters rows"],
    variance: Float[Array, "filters rows"],
    present: Bool[Array, " filters"],
) -> Float[Array, ""]:
    """Returns the expected maximum over the cores of one round, without those of filters that are not there."""
    dtype = mean.dtype
    rows = mean.shape[1]
    own = standard_deviation(variance)
    reach = _REACH * standard_deviation(variance + shared**2)
    there = present[:, None]
    low = jnp.where(there, mean - reach, -jnp.inf).max()
    high = jnp.where(there, mean + reach, -jnp.inf).max()
    times = low + (high - low) * jnp.asarray((_NODES + 1) / 2, dtype)  # [nodes]
    distance = times - mean[..., None]  # [filters, rows, nodes]
    if rows == 1:
        below = _below(distance, own[..., None])[:, 0]
    else:
        parts = jnp.asarray(_SHARED, dtype)[:, None, None, None] * shared[..., None]
        given_shared = _below(distance - parts, own[..., None]).prod(2)  # [shared, filters, nodes]
        below = jnp.tensordot(jnp.asarray(_SHARED_WEIGHTS, dtype), given_shared, 1)
    below = jnp.where(there, below, 1).prod(0)
    return high - (high - low) * (jnp.asarray(_NODE_WEIGHTS / 2, dtype) * below).sum()


def _below(distance: Array, deviation: Array) -> Array:
    """Returns the probability that a centred Gaussian stays below; of one without variance, 0 or 1."""
    spread = deviation > 0
    return jnp.where(
        spread, jax.scipy.special.ndtr(distance / jnp.where(spread, deviation, 1)), (distance >= 0).astype(distance.dtype)
    )
