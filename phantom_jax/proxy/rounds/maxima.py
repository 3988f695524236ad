"""Expected cycles of a round: the expected maximum over its cores (SPEC 8.3).

A core's time has a mean, a variance and a skewness; a Gaussian bent to that skewness by the transformation of Wilson
and Hilferty (1931), which makes it nearly a gamma variable, stands for its distribution. The maximum's distribution is
the product of the cores'; its mean is an integral by quadrature. As the variances vanish it becomes the hard maximum.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phantom_jax.proxy.numerics import below_chance, bend, largest, multiply_along, skewness, standard_deviation

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(24)  # of the maximum over columns
_REACH = 5.0  # standard deviations around a core's mean that the integral spans
_ROW_NODES, _ROW_NODE_WEIGHTS = np.polynomial.legendre.leggauss(12)  # of the maximum over rows
_ROW_REACH = 4.0
SHARED, SHARED_WEIGHTS = np.polynomial.hermite_e.hermegauss(5)  # of a shared part, in standard deviations
SHARED_WEIGHTS /= SHARED_WEIGHTS.sum()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CoreTimes:
    """Times of the cores of filters, of each the slowest."""

    mean: Float[Array, "*batch filters"]
    variance: Float[Array, "*batch filters"]
    skewness: Float[Array, "*batch filters"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowTimes:
    """Times of a column's rows, which run the same filter's bits."""

    mean: Float[Array, "rows *batch filters"]
    shared: Float[Array, "rows *batch filters"]  # standard deviation of what the rows have in common
    variance: Float[Array, "rows *batch filters"]  # of what each has of its own
    skewness: Float[Array, "*batch filters"]  # of what they have in common

    def slowest(self) -> CoreTimes:
        """Returns the moments of the maximum over rows: given the shared part, whose nodes are then averaged."""

        def column(array: np.ndarray, axes: int) -> Array:  # nodes first, for as many axes
            return jnp.asarray(array.reshape(-1, *(1,) * axes), self.mean.dtype)

        axes = self.skewness.ndim
        common = bend(column(SHARED, axes), self.skewness)  # [shared, *batch, filters]
        mean = self.mean + self.shared * common[:, None]  # [shared, rows, *batch, filters]
        own = standard_deviation(self.variance)
        low, high = largest(mean - _ROW_REACH * own, 1), largest(mean + _ROW_REACH * own, 1)
        span = high - low
        along = span * column((_ROW_NODES + 1) / 2, axes + 1)  # [nodes, shared, *batch, filters]
        step = span * column(_ROW_NODE_WEIGHTS / 2, axes + 1)
        below = multiply_along(below_chance((low + along)[:, :, None] - mean, own), 2)
        first = span - (step * below).sum(0)  # moments of the maximum above `low`
        second = span**2 - 2 * (step * along * below).sum(0)
        variance = jnp.maximum(second - first**2, 0)
        expected = low + first
        weights = column(SHARED_WEIGHTS, axes)
        mean = expected[0] + (weights * (expected - expected[0])).sum(0)
        apart = expected - mean
        spread = (weights * (variance + apart**2)).sum(0)
        third = (weights * (apart**3 + 3 * apart * variance)).sum(0)
        return CoreTimes(mean, spread, skewness(third, spread))


def expected_rounds(times: CoreTimes, per_round: int) -> Float[Array, "*batch rounds"]:
    """Returns the expected cycles of each round, which runs `per_round` consecutive filters."""
    *batch, filters = times.mean.shape
    if per_round == 1:
        return times.mean
    per_round = min(per_round, filters)
    present = cut_rounds(jnp.ones(filters, bool), per_round)

    def cut(array: Array) -> Array:
        return cut_rounds(array.reshape(-1, filters), per_round)

    expected = jax.vmap(jax.vmap(_expected_maximum), (0, None))(jax.tree.map(cut, times), present)
    return expected.reshape(*batch, -1)


def expected_rounds_of(within: Float[Array, "batch filters cycles"], per_round: int) -> Float[Array, "batch rounds"]:
    """Returns the expected cycles of each round from the chances of filters to last at most 0, 1, ... cycles."""
    rounds = cut_rounds(within.swapaxes(1, 2), per_round, filler=1)  # [B, cycles, rounds, per_round]
    return (1 - multiply_along(rounds, -1)).sum(1)


def cut_rounds(array: Array, per_round: int, filler: int = 0) -> Array:
    """Cuts the last axis, of filters, into rounds `[..., rounds, per_round]`, the last one filled up."""
    missing = [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % per_round)]
    return jnp.pad(array, missing, constant_values=filler).reshape(*array.shape[:-1], -1, per_round)


def _expected_maximum(times: CoreTimes, present: Bool[Array, " filters"]) -> Float[Array, ""]:
    """Returns the expected maximum over the cores of one round, without those of filters that are not there."""
    dtype = times.mean.dtype
    own = standard_deviation(times.variance)
    ends = [
        largest(jnp.where(present, times.mean + own * bend(jnp.asarray(reach, dtype), times.skewness), -jnp.inf), 0)
        for reach in (-_REACH, _REACH)
    ]
    low, high = ends
    at = low + (high - low) * jnp.asarray((_NODES + 1) / 2, dtype)  # [nodes]
    below = below_chance(at - times.mean[:, None], own[:, None], times.skewness[:, None])  # [filters, nodes]
    below = multiply_along(jnp.where(present[:, None], below, 1), 0)
    expected = high - (high - low) * (jnp.asarray(_NODE_WEIGHTS / 2, dtype) * below).sum()
    # No maximum exceeds the sum; where hardly any core has work, that is what it is.
    return jnp.minimum(expected, jnp.where(present, times.mean, 0).sum())
