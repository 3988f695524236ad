"""What is known of random cycles: means, covariances and how they follow the number of non-zero weights (SPEC 8.3)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phantom_jax.relaxed.rounds import CoreTimes, standard_deviation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loads:
    """Numbers of non-zero weights, of filters or of their jobs: sums of independent bits."""

    mean: Float[Array, "filters *jobs"]
    variance: Float[Array, "filters *jobs"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """First and second moments of cycles in the cells (segments or rows) that run the same kernel bits."""

    mean: Float[Array, "batch filters *jobs cells"]
    covariance: Float[Array, "batch filters *jobs cells cells"]
    with_load: Float[Array, "batch filters *jobs cells"]  # covariance of cycles with the load

    def sum_jobs(self) -> "Moments":
        """Adds up independent jobs of a filter, which one core runs after the other."""
        return jax.tree.map(lambda array: array.sum(2), self)

    def given_load(self, loads: Loads, deviation: Float[Array, "filters *jobs"]) -> "Moments":
        """Returns the moments given loads so many standard deviations from their mean, with which cycles are linear."""
        spread = loads.variance > 0
        scale = jnp.where(spread, 1 / jnp.sqrt(jnp.where(spread, loads.variance, 1)), 0)[..., None]
        slope = self.with_load * scale
        return Moments(
            self.mean + slope * deviation[..., None],
            self.covariance - slope[..., :, None] * slope[..., None, :],
            jnp.zeros_like(self.with_load),
        )

    def core_times(self) -> CoreTimes:
        """Splits each cell's variance into what it shares with the sum of all cells, and a part of its own."""
        variance = jnp.maximum(jnp.diagonal(self.covariance, axis1=-2, axis2=-1), 0)
        if self.mean.shape[-1] == 1:
            return CoreTimes(self.mean, jnp.zeros_like(self.mean), variance)
        with_sum = self.covariance.sum(-1)
        total = standard_deviation(with_sum.sum(-1, keepdims=True))
        shared = jnp.where(total > 0, with_sum / jnp.where(total > 0, total, 1), 0)
        return CoreTimes(self.mean, shared, jnp.maximum(variance - shared**2, 0))
