"""What is known of random cycles: means, covariances and how they follow the number of non-zero weights (SPEC 8.3)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phantom_jax.proxy.numerics import inverse, skewness, standard_deviation
from phantom_jax.proxy.rounds.loads import Drawn, Loads
from phantom_jax.proxy.rounds.maxima import CoreTimes, RowTimes

_MOST_SKEWNESS = 0.75  # given a load; cycles that are more skewed are few whole numbers, and no bent Gaussian


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """First and second moments of cycles in the cells (segments or rows) that run the same kernel bits."""

    mean: Float[Array, "cells batch filters *jobs"]
    covariance: Float[Array, "cells cells batch filters *jobs"]
    least: Float[Array, " cells"]  # cycles if there is any weight: one for each block
    with_load: Float[Array, "cells batch filters *jobs"] | None  # covariance of cycles with the load, to be given that
    third: Float[Array, "batch filters *jobs"] | None  # third central moment of all cells together; None if it is 0

    def sum_jobs(self) -> "Moments":
        """Adds up independent jobs of a filter, which one core runs after the other."""
        least = self.least if self.mean.shape[-1] == 1 else jnp.zeros_like(self.least)  # of several, unknown
        sums = (None if array is None else array.sum(-1) for array in (self.with_load, self.third))
        return Moments(self.mean.sum(-1), self.covariance.sum(-1), least, *sums)

    def given_load(self, loads: Loads, drawn: Drawn) -> "Moments":
        """Returns the moments given drawn loads: the least cycles, if there is any, and others linear in the load."""
        assert self.with_load is not None
        absent = loads.absent
        least = self.least.reshape(-1, *(1,) * (self.mean.ndim - 1))
        mean = self.mean - least * (1 - absent)
        with_absent = least[:, None] * (self.mean * absent)
        covariance = self.covariance - with_absent - with_absent.swapaxes(0, 1)
        covariance += least[:, None] * least * (absent * (1 - absent))
        with_load = self.with_load - least * (loads.mean * absent)
        slope = with_load * inverse(standard_deviation(loads.variance))
        share = drawn.load * inverse(loads.mean)  # a load of one is one part of the expected load's variance
        expected = jnp.maximum(mean + slope * drawn.deviation, 0) + least * drawn.present
        covariance -= slope[:, None] * slope
        third = self.third
        if third is not None:
            # Conditioning on the load removes its skewness and the growth of variance with it, at most all.
            total, rest = slope.sum(0), jnp.maximum(covariance.sum((0, 1)), 0)
            growth = standard_deviation(loads.variance) * inverse(loads.mean)
            left = third - total**3 * skewness(loads.third, loads.variance) - 3 * total * growth * rest
            most = _MOST_SKEWNESS * standard_deviation(rest) ** 3
            third = jnp.minimum(jnp.maximum(left, jnp.minimum(third, 0)), most) * share
        return Moments(expected, covariance * share, self.least, with_load=None, third=third)

    def core_times(self) -> CoreTimes:
        """Returns the time of the core that runs each filter, or of the slowest core where cells are cores."""
        variance = jnp.maximum(jnp.stack([self.covariance[cell, cell] for cell in range(len(self.mean))]), 0)
        skew = jnp.zeros_like(self.mean[0])
        if self.third is not None:
            skew = skewness(self.third, jnp.maximum(self.covariance.sum((0, 1)), 0))
        cells = len(self.mean)
        if cells == 1:
            return CoreTimes(self.mean[0], variance[0], skew)
        # A cell's cycles follow the mean over cells, up to a part of their own, which shows in its difference from it.
        with_mean = self.covariance.mean(0)
        apart = jnp.maximum(variance - with_mean**2 * inverse(with_mean.mean(0)), 0)
        apart_of_all = apart.sum(0) / (cells - 1)
        own = apart_of_all if cells == 2 else (apart - apart_of_all / cells) * (cells / (cells - 2))
        own = jnp.clip(own, 0, variance)
        return RowTimes(self.mean, standard_deviation(variance - own), own, skew).slowest()
