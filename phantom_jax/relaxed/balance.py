"""Level-2 balance of random loads: filters in order, jobs on rows (SPEC 5 and 8.3).

The mesh orders filters and places jobs by the loads that the drawn weights have, not by expected ones. So a few sets of
loads are drawn around the expected ones, always with the same normal numbers; the schedule follows each of them, and
what is left to spread core times is their variance given the loads. The schedule is constant for the gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phantom_jax.arch import Phantom2D
from phantom_jax.mesh import place_next
from phantom_jax.relaxed.moments import Loads, Moments
from phantom_jax.relaxed.rounds import CoreTimes, expected_rounds, skewness

_DRAWN_ROUNDS = 128  # sets of loads times rounds, at least: a layer of many rounds averages over them by itself


def balanced_filters(moments: Moments, loads: Loads, per_round: int, inter_balance: bool) -> Float[Array, " batch"]:
    """Returns the expected cycles where each filter runs on a column, or core, of its own."""
    filters = loads.mean.shape[0]
    if not inter_balance or filters <= per_round:  # one round takes all filters in any order
        return expected_rounds(moments.core_times(), per_round)

    def drawn(gaussian: Array) -> Array:
        deviations = loads.deviations(gaussian)
        order = _order(loads.at(deviations))
        given = moments.given_load(loads, deviations)
        return expected_rounds(jax.tree.map(lambda array: array[:, order], given.core_times()), per_round)

    return _mean_over_draws(drawn, loads, -(-filters // per_round))


def balanced_jobs(moments: Moments, loads: Loads, arch: Phantom2D) -> Float[Array, " batch"]:
    """Returns the expected cycles where rows share out a filter's jobs, each job's kernel bits its own.

    Args:
        moments: Of jobs, in a single cell.
        loads: Of jobs.
        arch: The accelerator.
    """
    filters, jobs = loads.mean.shape
    cols, rows = min(arch.cols, filters), min(arch.rows, jobs)
    rounds = -(-filters // cols)

    def cores(moments: Moments, order: Int[Array, " filters"], job_rows: Int[Array, "rounds jobs"]) -> Array:
        on_row = (job_rows[:, None] == jnp.arange(rows)[:, None]).astype(loads.mean.dtype)  # [rounds, rows, J]

        def by_row(array: Array) -> Array:  # [B, K, J] -> [B, K, rows], in the order of rounds
            array = jnp.pad(array[:, order], ((0, 0), (0, rounds * cols - filters), (0, 0)))
            array = array.reshape(-1, rounds, cols, jobs)
            summed = jnp.einsum("xrj,bxcj->bxcr", on_row, array, precision="highest")
            return summed.reshape(len(array), -1, rows)[:, :filters]

        mean, variance = by_row(moments.mean[..., 0]), jnp.maximum(by_row(moments.covariance[..., 0, 0]), 0)
        skew = skewness(by_row(moments.third), variance)
        # Every core has jobs of its own: as if it were a column.
        alone = (array.reshape(len(array), -1, 1) for array in (mean, jnp.zeros_like(mean), variance))
        return expected_rounds(CoreTimes(*alone, skew.reshape(len(skew), -1)), cols * rows)

    if not arch.inter_balance:
        return cores(moments, jnp.arange(filters), jnp.tile(jnp.arange(jobs) % rows, (rounds, 1)))

    def drawn(gaussian: Array) -> Array:
        deviations = loads.deviations(gaussian)
        values = jax.lax.stop_gradient(loads.at(deviations))
        order = _order(values.sum(1))
        placed = _place(jnp.pad(values[order], ((0, rounds * cols - filters), (0, 0))).reshape(rounds, cols, jobs), rows)
        return cores(moments.given_load(loads, deviations), order, placed)

    return _mean_over_draws(drawn, loads, rounds)


def _order(loads: Float[Array, " filters"]) -> Int[Array, " filters"]:
    return jnp.argsort(-jax.lax.stop_gradient(loads), stable=True)


def _place(loads: Float[Array, "rounds cols jobs"], rows: int) -> Int[Array, "rounds jobs"]:
    visits = jnp.argsort(-loads.sum(1), axis=1, stable=True)
    visited = jnp.take_along_axis(loads, visits[:, None], axis=2)
    start = jnp.zeros((rows, loads.shape[1], loads.shape[0]), loads.dtype)
    _, placed = jax.lax.scan(place_next, start, visited.transpose(2, 1, 0))
    return jnp.zeros_like(visits).at[jnp.arange(len(visits))[:, None], visits].set(placed.T)


def _mean_over_draws(drawn: Callable[[Array], Array], loads: Loads, rounds: int) -> Array:
    """Averages over sets of loads; the Gaussian numbers come in pairs of opposite signs."""
    pairs = -(-_DRAWN_ROUNDS // (2 * rounds))
    dtype = loads.mean.dtype
    gaussian = jax.random.normal(jax.random.key(0), (pairs, *loads.mean.shape), np.float32).astype(dtype)
    return jax.lax.map(jax.checkpoint(drawn), jnp.concatenate([gaussian, -gaussian])).mean(0)
