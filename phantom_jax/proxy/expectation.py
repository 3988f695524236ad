"""From a calibrated layer and its weights' probabilities to expected cycles (SPEC 8)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phantom_jax.exact import Blocks
from phantom_jax.proxy.balance import order_filters, run_rounds
from phantom_jax.proxy.calibration import LayerCalibration
from phantom_jax.proxy.jobs.chunks import chunk_cycles, chunk_moments
from phantom_jax.proxy.jobs.patterns import bits_by_filter, pattern_moments
from phantom_jax.proxy.jobs.samples import sampled_moments
from phantom_jax.proxy.moments import Moments
from phantom_jax.proxy.plan import Plan
from phantom_jax.proxy.rounds.loads import Loads
from phantom_jax.proxy.rounds.maxima import expected_rounds_of
from phantom_jax.proxy.single import single_job_cycles
from phantom_jax.windows import kernel_matrix

_DRAWN_TOGETHER = 1 << 16  # loads


@jax.jit
def layer_cycles(calibration: LayerCalibration, weights: Array) -> Float[Array, " batch"]:
    """Returns the expected cycles of a layer for each image; NaN where a weight is not a probability."""
    plan = calibration.plan
    groups, chunks, slots = plan.streams.groups, plan.streams.chunks, plan.arch.slots
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = (weights != 0).astype(jnp.float32)
    weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    valid = ((weights >= 0) & (weights <= 1)).all()
    matrix = kernel_matrix(weights, groups)
    matrix = jnp.pad(matrix, ((0, 0), (0, chunks * slots - matrix.shape[1]), (0, 0)))
    cycles = _WAYS[plan.way](calibration, matrix.reshape(groups, chunks, slots, -1))
    return cycles * jnp.where(valid, 1, jnp.nan)  # a product, so that gradients are NaN too


def _single_cycles(calibration: LayerCalibration, weights: Float[Array, "groups chunks slots filters"]) -> Array:
    plan = calibration.plan
    occupied = weights[:, 0, : plan.occupied_slots]
    table = calibration.table[:, :, 0]
    return single_job_cycles(table, occupied, plan.is_balanced, plan.per_round, plan.longest_segment)


def _block_cycles(calibration: LayerCalibration, weights: Float[Array, "groups chunks slots filters"]) -> Array:
    plan = calibration.plan
    within = chunk_cycles(calibration.windows, weights, plan.segments, plan.arch)
    return expected_rounds_of(within, plan.per_round).sum(1)


def _pattern_moments(calibration: LayerCalibration, weights: Float[Array, "groups chunks slots filters"]) -> Moments:
    plan = calibration.plan
    least = np.bincount(Blocks.of(plan.segments, plan.arch.lookahead).segment)
    table, spread = jax.tree.map(lambda table: jnp.moveaxis(table, 0, 2), (calibration.table, calibration.spread))
    moments = pattern_moments(table, spread, weights[:, :, : plan.occupied_slots], least, plan.is_balanced)
    return moments if plan.places_jobs else moments.sum_jobs()


def _chain_moments(calibration: LayerCalibration, weights: Float[Array, "groups chunks slots filters"]) -> Moments:
    plan = calibration.plan
    return chunk_moments(calibration.windows, weights, plan.segments, plan.cells, plan.is_balanced, plan.arch)


def _sample_moments(calibration: LayerCalibration, weights: Float[Array, "groups chunks slots filters"]) -> Moments:
    plan = calibration.plan
    axis = plan.streams.axis
    moments = sampled_moments(calibration.windows, weights, axis, plan.segments, plan.cells, plan.arch)
    return moments if plan.places_jobs or axis == "chunks" else moments.sum_jobs()


def _scheduled(moments_of: Callable[[LayerCalibration, Array], Moments]) -> Callable[[LayerCalibration, Array], Array]:
    """Makes a way from a function that returns the moments of jobs if rows share them out, else of filters."""

    def cycles(calibration: LayerCalibration, weights: Float[Array, "groups chunks slots filters"]) -> Array:
        plan, moments = calibration.plan, moments_of(calibration, weights)
        if calibration.uniform is None:
            return run_rounds(moments, jnp.arange(plan.streams.filters), None, plan).sum(1)
        loads = Loads.of(_load_bits(plan, weights))

        @jax.checkpoint
        def draw(uniform: Array) -> Array:
            drawn = loads.draw(uniform)
            order = order_filters(drawn.followed)
            return run_rounds(moments.given_load(loads, drawn), order, drawn.followed, plan).sum(1)

        uniform = calibration.uniform.astype(weights.dtype)
        together = max(1, _DRAWN_TOGETHER // loads.mean.size)
        return jax.lax.map(draw, uniform, batch_size=min(together, len(uniform))).mean(0)

    return cycles


def _load_bits(plan: Plan, weights: Float[Array, "groups chunks slots filters"]) -> Array:
    """Returns the bits `[K, G, slots]` of each job's load if rows share out jobs, else of each filter's, `[K, Rd]`."""
    bits = bits_by_filter(weights)
    return bits[..., : plan.occupied_slots] if plan.places_jobs else bits.reshape(len(bits), -1)[:, : plan.reduction]


_WAYS: dict[str, Callable[[LayerCalibration, Array], Array]] = {
    "single": _single_cycles,
    "blocks": _block_cycles,
    "patterns": _scheduled(_pattern_moments),
    "chain": _scheduled(_chain_moments),
    "samples": _scheduled(_sample_moments),
}
