"""What is known of random cycles: means, covariances and how they follow the number of non-zero weights (SPEC 8.3)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phantom_jax.relaxed.rounds import CoreTimes, bend, multiply_along, skewness, standard_deviation


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

    def take(self, filters: Int[Array, " taken"]) -> "Loads":
        """Returns the loads of some filters, in this order."""
        return jax.tree.map(lambda array: array[filters], self)

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
    absent: Float[Array, "filters *jobs"]  # chance that nothing is dispatched, for want of a weight
    least: Float[Array, " cells"]  # cycles if anything is: one for each block

    def sum_jobs(self) -> "Moments":
        """Adds up independent jobs of a filter, which one core runs after the other."""
        mean, covariance, with_load, third = (
            array.sum(2) for array in (self.mean, self.covariance, self.with_load, self.third)
        )
        least = self.least if self.absent.shape[1] == 1 else jnp.zeros_like(self.least)  # of several, unknown
        return Moments(mean, covariance, with_load, third, multiply_along(self.absent, 1), least)

    def take(self, filters: Int[Array, " taken"]) -> "Moments":
        """Returns the moments of some filters, in this order."""
        mean, covariance, with_load, third = (
            array[:, filters] for array in (self.mean, self.covariance, self.with_load, self.third)
        )
        return Moments(mean, covariance, with_load, third, self.absent[filters], self.least)

    def given_load(self, loads: Loads, deviations: Float[Array, "filters *jobs"]) -> "Moments":
        """Returns the moments given loads so many standard deviations from their mean.

        Cycles are the least ones, if there is any load, and others that are linear in the load.
        """
        load = jnp.maximum(loads.at(deviations), 0)
        absent = self.absent[..., None]
        mean = self.mean - self.least * (1 - absent)
        with_absent = self.least[:, None] * (self.mean * absent)[..., None, :]
        covariance = self.covariance - with_absent - with_absent.swapaxes(-1, -2)
        covariance += self.least[:, None] * self.least * (absent * (1 - absent))[..., None]
        with_load = self.with_load - self.least * loads.mean[..., None] * absent
        scale = _inverse(standard_deviation(loads.variance))
        slope = with_load * scale[..., None]
        share = load * _inverse(loads.mean)  # a load of one is one part of the expected load's variance
        third = self.third - (slope.sum(-1) * scale) ** 3 * loads.third
        return Moments(
            jnp.maximum(mean + slope * deviations[..., None], 0) + self.least * jnp.minimum(load, 1)[..., None],
            (covariance - slope[..., :, None] * slope[..., None, :]) * share[..., None, None],
            jnp.zeros_like(with_load),
            jnp.where(self.least.sum() > 0, 0, third * share),
            self.absent,
            self.least,
        )

    def core_times(self) -> CoreTimes:
        """Splits each cell's variance into what it shares with the other cells, and a part of its own."""
        variance = jnp.maximum(jnp.diagonal(self.covariance, axis1=-2, axis2=-1), 0)
        skew = skewness(self.third, jnp.maximum(self.covariance.sum((-2, -1)), 0))
        cells = self.mean.shape[-1]
        if cells == 1:
            return CoreTimes(self.mean, jnp.zeros_like(self.mean), variance, skew)
        # Where one factor is all that cells share, its part in a cell is as the cell's covariance with the others.
        with_others = jnp.maximum(self.covariance.sum(-1) - variance, 0)
        factor = _inverse(standard_deviation(with_others.sum(-1, keepdims=True) * ((cells - 1) / cells)))
        shared = jnp.minimum(with_others * factor, standard_deviation(variance))
        return CoreTimes(self.mean, shared, jnp.maximum(variance - shared**2, 0), skew)


def _inverse(values: Array) -> Array:
    """Returns 1 / values, and 0 where they are 0."""
    return jnp.where(values > 0, 1 / jnp.where(values > 0, values, 1), 0)
