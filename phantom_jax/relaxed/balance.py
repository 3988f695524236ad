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

_DRAWN_ROUNDS = 64  # sets of loads times rounds, at least: a layer of many rounds averages over them by itself


def order_filters(loads: Loads, deviations: Array | None) -> Int[Array, " filters"]:
    """Returns filters by their drawn loads, descending, stable; as they come without a draw."""
    if deviations is None:
        return jnp.arange(len(loads.mean))
    drawn = jax.lax.stop_gradient(loads.at(deviations))
    return jnp.argsort(-(drawn if drawn.ndim == 1 else drawn.sum(1)), stable=True)


def run_filters(
    moments: Moments, loads: Loads, deviations: Array | None, per_round: int
) -> Float[Array, "batch rounds"]:
    """Returns the expected cycles of rounds where each filter, in order, runs on a column, or core, of its own."""
    given = moments if deviations is None else moments.given_load(loads, deviations)
    return expected_rounds(given.core_times(), per_round)


def run_jobs(moments: Moments, loads: Loads, deviations: Array | None, arch: Phantom2D) -> Float[Array, "batch rounds"]:
    """Returns the expected cycles of rounds whose rows share out the jobs of filters in order.

    Args:
        moments: Of jobs, in a single cell, each with kernel bits of its own.
        loads: Of jobs.
        deviations: Of the jobs' loads in a draw; without one, jobs go round the rows.
        arch: The accelerator.
    """
    filters, jobs = loads.mean.shape
    cols, rows = min(arch.cols, filters), min(arch.rows, jobs)
    rounds = -(-filters // cols)
    missing = rounds * cols - filters
    if deviations is None:
        given, job_rows = moments, jnp.tile(jnp.arange(jobs) % rows, (rounds, 1))
    else:
        given = moments.given_load(loads, deviations)
        drawn = jnp.pad(jax.lax.stop_gradient(loads.at(deviations)), ((0, missing), (0, 0)))
        job_rows = _place(drawn.reshape(rounds, cols, jobs), rows)
    on_row = (job_rows[:, None] == jnp.arange(rows)[:, None]).astype(loads.mean.dtype)  # [rounds, rows, J]

    def by_core(array: Array) -> Array:  # [B, K, J] -> [B, K * rows]
        array = jnp.pad(array, ((0, 0), (0, missing), (0, 0))).reshape(-1, rounds, cols, jobs)
        summed = jnp.einsum("xrj,bxcj->bxcr", on_row, array, precision="highest")
        return summed.reshape(len(array), -1)[:, : filters * rows]

    mean, third = by_core(given.mean[..., 0]), by_core(given.third)
    variance = jnp.maximum(by_core(given.covariance[..., 0, 0]), 0)
    alone = mean[..., None], jnp.zeros_like(mean)[..., None], variance[..., None]  # as if each core were a column
    return expected_rounds(CoreTimes(*alone, skewness(third, variance)), cols * rows)


def mean_over_draws(run: Callable[[Array], Array], loads: Loads, rounds: int) -> Array:
    """Averages what `run` returns for drawn deviations of loads, which come in pairs from opposite Gaussian numbers."""
    pairs = -(-_DRAWN_ROUNDS // (2 * rounds))
    gaussian = draw(loads, pairs, jax.random.key(0))
    both = jnp.concatenate([gaussian, -gaussian])
    return jax.vmap(lambda numbers: run(loads.deviations(numbers)))(both).mean(0)


def draw(loads: Loads, draws: int, key: Array) -> Float[Array, "draws filters *jobs"]:
    """Draws Gaussian numbers, the same whatever their precision."""
    return jax.random.normal(key, (draws, *loads.mean.shape), np.float32).astype(loads.mean.dtype)


def _place(loads: Float[Array, "rounds cols jobs"], rows: int) -> Int[Array, "rounds jobs"]:
    visits = jnp.argsort(-loads.sum(1), axis=1, stable=True)
    visited = jnp.take_along_axis(loads, visits[:, None], axis=2)
    start = jnp.zeros((rows, loads.shape[1], loads.shape[0]), loads.dtype)
    _, placed = jax.lax.scan(place_next, start, visited.transpose(2, 1, 0))
    return jnp.zeros_like(visits).at[jnp.arange(len(visits))[:, None], visits].set(placed.T)
