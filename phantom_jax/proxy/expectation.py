"""From a calibrated layer and its weights' probabilities to expected cycles (SPEC 8)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phantom_jax.proxy.calibration import LayerCalibration
from phantom_jax.proxy.jobs import patterns
from phantom_jax.proxy.jobs.chunks import Blocks, chunk_cycles, chunk_moments
from phantom_jax.proxy.jobs.samples import sampled_moments
from phantom_jax.proxy.moments import Moments
from phantom_jax.proxy.plan import Plan
from phantom_jax.proxy.rounds.balance import order_filters, run_rounds
from phantom_jax.proxy.rounds.loads import Loads
from phantom_jax.proxy.rounds.maxima import expected_rounds_of
from phantom_jax.proxy.rounds.single import single_job_cycles
from phantom_jax.windows import kernel_matrix

_DRAWN_TOGETHER = 1 << 16  # loads


@functools.partial(jax.jit, static_argnames=("rounds", "chunks"))
def layer_cycles(
    calibration: LayerCalibration,
    weights: Array,
    key: Array | None = None,
    rounds: int | None = None,
    chunks: int | None = None,
) -> Float[Array, " batch"]:
    """Returns the expected cycles of a layer for each image."""
    plan = calibration.plan
    cut, arch = plan.cut, plan.arch
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = (weights != 0).astype(jnp.float32)
    weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    valid = ((weights >= 0) & (weights <= 1)).all()
    matrix = kernel_matrix(weights, cut.groups)
    matrix = jnp.pad(matrix, ((0, 0), (0, cut.chunks * arch.slots - matrix.shape[1]), (0, 0)))
    slots = matrix.reshape(cut.groups, cut.chunks, arch.slots, -1)  # [groups, G, S, K/groups]
    if plan.has_single_jobs:
        occupied = slots[:, 0, : plan.slots]
        longest = max(stop - start for start, stop in plan.segments)
        cycles = single_job_cycles(calibration.table[:, :, 0], occupied, plan.is_balanced, plan.per_round, longest)
    elif plan.adds_blocks:
        within = chunk_cycles(calibration.windows, slots, plan.segments, arch)
        cycles = expected_rounds_of(within, plan.per_round).sum(1)
    else:
        keys = jax.random.split(jax.random.key(0) if key is None else key, 3)
        chunk_key = keys[2] if chunks is not None and chunks < cut.chunks else None
        if rounds is not None and rounds < plan.rounds and cut.groups == 1:
            cycles = _sampled_rounds(calibration, slots, rounds, keys[0], chunks, chunk_key)
        else:
            cycles = _all_rounds(calibration, slots, chunks, chunk_key)
    return cycles * jnp.where(valid, 1, jnp.nan)  # so that gradients are none either


def _all_rounds(calibration: LayerCalibration, slots: Array, chunks: int | None, key: Array | None) -> Array:
    plan = calibration.plan
    moments = _moments(calibration, slots, chunks, key)
    if calibration.uniform is None:
        return run_rounds(moments, jnp.arange(plan.cut.filters), None, plan).sum(1)
    loads = Loads.of(_loads_bits(plan, slots))

    @jax.checkpoint
    def draw(uniform: Array) -> Array:
        drawn = loads.draw(uniform)
        order = order_filters(drawn.followed)
        return run_rounds(moments.given_load(loads, drawn), order, drawn.followed, plan).sum(1)

    uniform = calibration.uniform.astype(slots.dtype)
    together = max(1, _DRAWN_TOGETHER // loads.mean.size)
    return jax.lax.map(draw, uniform, batch_size=min(together, len(uniform))).mean(0)


def _sampled_rounds(
    calibration: LayerCalibration, slots: Array, rounds: int, key: Array, chunks: int | None, chunk_key: Array | None
) -> Array:
    """Lets random rounds of one of the drawn schedules stand for all."""
    plan = calibration.plan
    draw_key, round_key = jax.random.split(key)
    loads = drawn = followed = None
    order = jnp.arange(plan.cut.filters)
    if calibration.uniform is not None:
        loads = Loads.of(_loads_bits(plan, slots))
        uniform = calibration.uniform[jax.random.randint(draw_key, (), 0, len(calibration.uniform))]
        drawn = loads.draw(uniform.astype(slots.dtype))
        order = order_filters(drawn.followed)
    full = plan.cut.filters // plan.per_round  # rounds; another one, if it is not full, is always taken
    rounds = min(rounds, full)
    chosen = jax.random.choice(round_key, full, (rounds,), replace=False)
    taken = order[: full * plan.per_round].reshape(full, -1)[chosen].reshape(-1)
    taken = jnp.concatenate([taken, order[full * plan.per_round :]])
    moments = _moments(calibration, slots[..., taken], chunks, chunk_key)
    if loads is not None and drawn is not None:
        drawn = drawn.take(taken)
        moments = moments.given_load(loads.take(taken), drawn)
        followed = drawn.followed
    cycles = run_rounds(moments, jnp.arange(len(taken)), followed, plan)
    return full / rounds * cycles[:, :rounds].sum(1) + cycles[:, rounds:].sum(1)


def _loads_bits(plan: Plan, slots: Array) -> Array:
    """Returns the bits `[K, G, slots]` of each job's load if rows share out jobs, else of each filter's, `[K, Rd]`."""
    bits = patterns.bits_by_filter(slots)
    return bits[..., : plan.slots] if plan.places_jobs else bits.reshape(len(bits), -1)[:, : plan.reduction]


def _moments(calibration: LayerCalibration, slots: Array, chunks: int | None, key: Array | None) -> Moments:
    """Returns the moments of jobs if rows share them out, else of filters."""
    plan = calibration.plan
    if plan.method == "chain":
        return chunk_moments(calibration.windows, slots, plan.segments, plan.cells, plan.is_balanced, plan.arch)
    if plan.method == "samples":
        moments = sampled_moments(calibration.windows, slots, plan.cut.axis, plan.segments, plan.cells, plan.arch)
    else:
        occupied = slots[:, :, : plan.slots]
        by_chunk = jax.tree.map(lambda table: jnp.moveaxis(table, 0, 2), (calibration.table, calibration.spread))
        moments = _pattern_moments(plan, by_chunk, occupied, chunks, key)
    return moments if plan.places_jobs or plan.cut.axis == "chunks" else moments.sum_jobs()


def _pattern_moments(plan: Plan, tables: Any, occupied: Array, chunks: int | None, key: Array | None) -> Moments:
    """Returns the moments of jobs from their tables; with a key, the gradient goes through so many chunks alone."""
    least = np.bincount(Blocks.of(plan.segments, plan.arch.lookahead).segment)

    def moments(tables: Any, bits: Array) -> Moments:
        table, spread = tables
        return patterns.pattern_moments(table, spread, bits, least, plan.is_balanced)

    if key is None or chunks is None:
        return moments(tables, occupied)
    taken = jax.random.choice(key, plan.cut.chunks, (chunks,), replace=False)
    whole = jax.lax.stop_gradient(moments(tables, jax.lax.stop_gradient(occupied)))
    part = moments(jax.tree.map(lambda table: table[:, taken], tables), occupied[:, taken])

    def join(whole: Array, part: Array) -> Array:  # jobs come last
        return whole.at[..., taken].add((part - jax.lax.stop_gradient(part)) * (plan.cut.chunks / chunks))

    joined = [
        None if of_whole is None or of_part is None else join(of_whole, of_part)
        for of_whole, of_part in ((whole.with_load, part.with_load), (whole.third, part.third))
    ]
    mean, covariance = join(whole.mean, part.mean), join(whole.covariance, part.covariance)
    return Moments(mean, covariance, whole.least, *joined)
