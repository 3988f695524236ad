"""Level-2 balance of random loads: filters in order, jobs on rows (SPEC 5 and 8.3).

The mesh orders filters and places jobs by the loads that the drawn weights have, not by expected ones. So a few sets of
loads are drawn around the expected ones, always with the same numbers; the schedule follows each of them, and what is
left to spread core times is their variance given the loads. The schedule is constant for the gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phantom_jax.exact import place_next
from phantom_jax.proxy.moments import Moments
from phantom_jax.proxy.numerics import skewness
from phantom_jax.proxy.plan import Plan
from phantom_jax.proxy.rounds.maxima import CoreTimes, cut_rounds, expected_rounds

_DRAWN_ROUNDS = 64  # sets of loads times rounds, at least: a layer of many rounds averages over them by itself


def draw_uniform(plan: Plan) -> Float[np.ndarray, "draws filters *jobs"]:
    """Draws what part of their distributions is below the loads of filters, or of their jobs if rows share these out.

    They come in pairs, from opposite sides, and those of a filter or job are spread evenly over the draws.
    """
    pairs = -(-_DRAWN_ROUNDS // (2 * plan.rounds))
    filters, jobs = plan.streams.filters, plan.streams.jobs if plan.places_jobs else 1
    generator = np.random.Generator(np.random.Philox(0))
    strata = generator.permuted(np.tile(np.arange(pairs)[:, None, None], (1, filters, jobs)), axis=0)
    uniform = (strata + generator.random((pairs, filters, jobs))) / (2 * pairs)
    uniform = np.where(generator.random(uniform.shape) < 0.5, uniform, 1 - uniform).astype(np.float32)
    both = np.concatenate([uniform, 1 - uniform])
    return both if plan.places_jobs else both[..., 0]


def order_filters(loads: Float[Array, "filters *jobs"]) -> Int[Array, " filters"]:
    """Returns filters by their drawn loads, descending, stable."""
    return jnp.argsort(-(loads if loads.ndim == 1 else loads.sum(1)), stable=True)


def run_rounds(
    moments: Moments, order: Int[Array, " filters"], loads: Float[Array, "filters *jobs"] | None, plan: Plan
) -> Float[Array, "batch rounds"]:
    """Returns the expected cycles of each round.

    Args:
        moments: Of filters; of their jobs, each with kernel bits of its own, if rows share these out.
        order: Filters in the order of rounds.
        loads: That jobs are placed by; without, they go round the rows.
        plan: Of the layer.
    """
    if not plan.places_jobs:
        return expected_rounds(jax.tree.map(lambda array: array[:, order], moments.core_times()), plan.per_round)
    filters, jobs = moments.mean.shape[2:]
    cols, rows = min(plan.arch.cols, filters), min(plan.arch.rows, jobs)
    job_rows = jnp.tile(jnp.arange(jobs) % rows, (filters, 1))
    if loads is not None:
        placed = _place(cut_rounds(loads[order].T, cols).transpose(1, 2, 0), rows)  # [rounds, J]
        job_rows = job_rows.at[order].set(jnp.repeat(placed, cols, 0)[:filters])
    on_row = (job_rows[:, None] == jnp.arange(rows)[:, None]).astype(moments.mean.dtype)  # [K, rows, J]

    def by_core(array: Array) -> Array:  # [B, K, J] -> [B, K * rows], of which those of a round are consecutive
        summed = jnp.einsum("krj,bkj->bkr", on_row, array, precision="highest")
        return summed[:, order].reshape(len(array), -1)

    mean, variance = by_core(moments.mean[0]), jnp.maximum(by_core(moments.covariance[0, 0]), 0)
    skew = jnp.zeros_like(mean) if moments.third is None else skewness(by_core(moments.third), variance)
    return expected_rounds(CoreTimes(mean, variance, skew), cols * rows)


def _place(loads: Float[Array, "rounds cols jobs"], rows: int) -> Int[Array, "rounds jobs"]:
    visits = jnp.argsort(-loads.sum(1), axis=1, stable=True)
    visited = jnp.take_along_axis(loads, visits[:, None], axis=2)
    start = jnp.zeros((rows, loads.shape[1], loads.shape[0]), loads.dtype)
    _, placed = jax.lax.scan(place_next, start, visited.transpose(2, 1, 0))
    return jnp.zeros_like(visits).at[jnp.arange(len(visits))[:, None], visits].set(placed.T)
