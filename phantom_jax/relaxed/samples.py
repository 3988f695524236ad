"""Sampled kernels, where neither a table nor a chain is small enough (SPEC 8).

Kernels are drawn from their probabilities, always with the same uniform numbers, and their jobs counted exactly: an
unbiased estimate, and exact where probabilities are 0 or 1. Samples are weighed by their likelihood relative to the
probabilities that they were drawn from, which is 1, and whose gradient makes that of the estimate (the score function).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phantom_jax.arch import Phantom2D
from phantom_jax.relaxed.engine import job_cycles
from phantom_jax.relaxed.moments import Moments
from phantom_jax.relaxed.patterns import product

SAMPLES = 64  # kernels of each job
_SMALLEST = 2.0**-23  # uniform number


def draw(weights: Float[Array, "*shape"]) -> tuple[Array, Array]:
    """Draws kernel bits `[samples, *shape]`, with the logarithm of their likelihood, whose value is set to 0."""
    uniform = jax.random.uniform(jax.random.key(0), (SAMPLES, *weights.shape), np.float32, minval=_SMALLEST)
    bits = uniform < jax.lax.stop_gradient(weights)
    # Where a bit was drawn, its probability is above the smallest number.
    chance = jnp.where(bits, weights, 1 - weights)
    likelihood = jnp.log(jnp.where(chance > 0, chance, 1))
    return bits, likelihood - jax.lax.stop_gradient(likelihood)


def sampled_moments(cycles: Float[Array, "samples batch cells"], loads: Array, likelihood: Array) -> Moments:
    """Returns the moments of samples `[samples]` that have these loads and logarithms of likelihood."""
    weight = jax.nn.softmax(likelihood)
    mean, load = jnp.tensordot(weight, cycles, 1), jnp.dot(weight, loads)
    apart, load_apart = cycles - mean, loads - load
    covariance = jnp.einsum("s,sbc,sbd->bcd", weight, apart, apart, precision="highest")
    return Moments(mean, covariance, jnp.einsum("s,sbc,s->bc", weight, apart, load_apart, precision="highest"))
