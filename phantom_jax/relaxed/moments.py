"""What is known of random cycles: means, covariances and how they follow the number of non-zero weights (SPEC 8.3)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phantom_jax.relaxed.rounds import CoreTimes, bend, skewness, standard_deviation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loads:
    """Numbers of non-zero weights, of filters or of their jobs: sums of independent bits."""

    mean: Float[Array, "filters *jobs"]
    variance: Float[Array, "filters *jobs"]
    third: Float[Array, "filters *jobs"]  # central moment

    def sum_jobs(self) -> "Loads":
        """Returns the loads of filters from those of their jobs."""
        return jax.tree.map(lambda array: array.sum(1), self)

    def deviations(self, gaussian: Float[Array, "filters *jobs"]) -> Float[Array, "filters *jobs"]:
        """Returns how far loads are from their mean, in standard deviations, for standard Gaussian numbers."""
        return bend(gaussian, skewness(self.third, self.variance))

    def at(self, deviations: Float[Array, "filters *jobs"]) -> Float[Array, "filters *jobs"]:
        """Returns the loads that are so many standard deviations from their mean."""
        return self.mean + standard_deviation(self.variance) * deviations


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """First and second moments of cycles in the cells (segments or rows) that run the same kernel bits."""

    mean: Float[Array, "batch filters *jobs cells"]
    covariance: Float[Array, "batch filters *jobs cells cells"]
    with_load: Float[Array, "batch filters *jobs cells"]  # covariance of cycles with the load
    third: Float[Array, "batch filters *jobs"]  # third central moment of the cycles of all cells together

    def sum_jobs(self) -> "Moments":
        """Adds up independent jobs of a filter, which one core runs after the other."""
        return jax.tree.map(lambda array: array.sum(2), self)

    def given_load(self, loads: Loads, deviations: Float[Array, "filters *jobs"]) -> "Moments":
        """Returns the moments given loads so many standard deviations from their mean, with which cycles are linear."""
        spread = loads.variance > 0
        scale = jnp.where(spread, 1 / jnp.sqrt(jnp.where(spread, loads.variance, 1)), 0)
        slope = self.with_load * scale[..., None]
        explained = (slope.sum(-1) * scale) ** 3 * loads.third
        share = jnp.where(loads.mean > 0, jnp.maximum(loads.at(deviations), 0) / jnp.where(loads.mean > 0, loads.mean, 1), 0)
        return Moments(
            jnp.maximum(self.mean + slope * deviations[..., None], 0),
            (self.covariance - slope[..., :, None] * slope[..., None, :]) * share[..., None, None],
            jnp.zeros_like(self.with_load),
            (self.third - explained) * share,
        )

    def core_times(self) -> CoreTimes:
        """Splits each cell's variance into what it shares with the sum of all cells, and a part of its own."""
        variance = jnp.maximum(jnp.diagonal(self.covariance, axis1=-2, axis2=-1), 0)
        with_sum = self.covariance.sum(-1)
        total = jnp.maximum(with_sum.sum(-1), 0)
        skew = skewness(self.third, total)
        if self.mean.shape[-1] == 1:
            return CoreTimes(self.mean, jnp.zeros_like(self.mean), variance, skew)
        deviation = standard_deviation(total)[..., None]
        shared = jnp.where(deviation > 0, with_sum / jnp.where(deviation > 0, deviation, 1), 0)
        return CoreTimes(self.mean, shared, jnp.maximum(variance - shared**2, 0), skew)
