"""Numbers of non-zero weights where bits are random: what level-2 balance orders and places by (SPEC 5 and 8.3)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phantom_jax.proxy.numerics import bend, inverse, multiply_along, skewness, standard_deviation

_MOST_BITS = 64  # of a load that is taken as binomial; that of more bits is nearly Gaussian
_LEAST_CHANCE = 1e-6  # of what is not a step
_QUANTUM = 2.0**-4  # of a load


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("mean", "variance", "third", "absent"), meta_fields=("bits",)
)
@dataclasses.dataclass(frozen=True)
class Loads:
    """Loads of filters or of their jobs: sums of independent bits."""

    mean: Float[Array, "filters *jobs"]
    variance: Float[Array, "filters *jobs"]
    third: Float[Array, "filters *jobs"]  # central moment
    absent: Float[Array, "filters *jobs"]  # chance of none
    bits: int  # of each

    @classmethod
    def of(cls, bits: Float[Array, "filters *jobs bits"]) -> "Loads":
        """Returns the loads that these bits add up to."""
        spread = bits * (1 - bits)
        third = (spread * (1 - 2 * bits)).sum(-1)
        return cls(bits.sum(-1), spread.sum(-1), third, multiply_along(1 - bits, -1), bits.shape[-1])

    def draw(self, uniform: Float[Array, "filters *jobs"]) -> "Drawn":
        """Returns the loads below which lies this part of their distributions, smooth in the bits' probabilities."""
        deviation = self._deviation(uniform)
        # The step from none to some is a ramp, above where there are no loads: zeros may all be placed on one row.
        width = jnp.minimum(self.absent, 1 - self.absent) / 4
        some = width > _LEAST_CHANCE
        ramp = jnp.clip((uniform - self.absent) / jnp.where(some, width, 1), 0, 1)
        chance = 1 - self.absent  # of which the ramp takes off half its width
        kept = ramp * jnp.where(some, chance / jnp.where(some, chance - width / 2, 1), 1)
        return Drawn(
            load=jnp.maximum(self.mean + standard_deviation(self.variance) * deviation, 0),
            deviation=deviation,
            present=jnp.where(some, kept, uniform >= self.absent),
        )

    def _deviation(self, uniform: Float[Array, "filters *jobs"]) -> Float[Array, "filters *jobs"]:
        """Returns how far drawn loads are from their mean, in standard deviations.

        Those of few bits as binomial ones: their distribution function is a line from the middle of each integer's step
        to the middle of the next, which keeps the chances of none and of all, and the mean.
        """
        if self.bits > _MOST_BITS:
            return bend(jax.scipy.special.ndtri(uniform), skewness(self.third, self.variance))
        chance = jnp.clip(self.mean / self.bits, _LEAST_CHANCE, 1 - _LEAST_CHANCE)
        mean, log_chance, log_other = self.bits * chance, jnp.log(chance), jnp.log1p(-chance)
        loads = np.arange(1, self.bits + 1)
        ways = np.log([float(math.comb(self.bits, load)) for load in loads])

        @jax.checkpoint
        def step(carry: tuple[Array, ...], load_and_ways: Array) -> tuple[tuple[Array, ...], None]:
            below, start, drawn, variance = carry  # chance of less than the load; distribution function before it
            load, log_ways = load_and_ways
            of_load = jnp.exp(log_ways + load * log_chance + (self.bits - load) * log_other)
            end = below + jnp.where(load < self.bits, of_load / 2, 0)
            some = end - start > _LEAST_CHANCE
            along = jnp.clip((uniform - start) / jnp.where(some, end - start, 1), 0, 1)
            before, after = load - 1 - mean, load - mean
            drawn += jnp.where(some, along, uniform >= start)
            variance += (end - start) * (before**2 + before * after + after**2) / 3
            return (below + of_load, end, drawn, variance), None

        none = jnp.exp(self.bits * log_other)
        first = none, none, jnp.zeros_like(mean), none * mean**2
        rows = jnp.asarray(np.stack([loads, ways], 1), mean.dtype)
        _, _, drawn, variance = jax.lax.scan(step, first, rows)[0]
        variance += jnp.exp(self.bits * log_chance) * (self.bits - mean) ** 2
        return (drawn - mean) * inverse(standard_deviation(variance))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """Drawn loads of filters or of their jobs."""

    load: Float[Array, "filters *jobs"]
    deviation: Float[Array, "filters *jobs"]  # from the mean, in standard deviations
    present: Float[Array, "filters *jobs"]  # about 1 where there is a load, 0 where there is none, and a ramp between

    @property
    def followed(self) -> Float[Array, "filters *jobs"]:
        """The loads that schedules follow: rounded, so that what would be equal integers stays equal."""
        return jax.lax.stop_gradient(jnp.round(self.load / _QUANTUM) * _QUANTUM)
