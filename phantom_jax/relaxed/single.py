"""Layers of one chunk, such as depthwise ones: a column's time is a function of one kernel pattern (SPEC 8.3).

Its whole distribution is at hand, together with that of the filter's load. So rounds need no moments: the chance that a
round takes at most t cycles is a product over filters. Level-2 balance puts a filter into a round by its load and by
the others'. Of those some are drawn, and the filter's own bits then say whether it is in the round and how long it
takes. The drawn loads are constants for the gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phantom_jax.relaxed.patterns import pattern_bits, pattern_probabilities
from phantom_jax.relaxed.rounds import cut_rounds, inverse, multiply_along

_MOST_NODES = 128  # of distributions over cycles; where there are more cycles, in between they are lines
_MOST_SHARE = 0.999  # of filters above a node; of all, a logarithm would be infinite


def single_job_cycles(
    table: Float[Array, "batch groups segments patterns"],
    weights: Float[Array, "groups slots filters"],
    uniform: Float[Array, "draws all_filters"] | None,
    per_round: int,
    length: int,
) -> Float[Array, " batch"]:
    """Returns the expected cycles of a layer of one chunk per filter, for each image.

    Args:
        table: Cycles of each segment, which run on cores of their own.
        weights: Probabilities of the kernel bits of each group's filters.
        uniform: What part of the distribution of its load is below the drawn load of each filter; None if filters run
            as they come.
        per_round: Filters of a round.
        length: Masks of a segment, no fewer than its cycles.
    """
    chances = jax.vmap(pattern_probabilities)(weights)  # [groups, K/groups, patterns]
    filters = chances.shape[0] * chances.shape[1]
    loads = pattern_bits(weights.shape[1]).sum(0)
    by_load = [np.flatnonzero(loads == load) for load in range(loads.max() + 1)]
    nodes = min(length + 1, _MOST_NODES)
    bits = weights.swapaxes(1, 2).reshape(filters, -1)
    rounds = None
    if uniform is not None:
        rounds = _rounds_by_load(jax.lax.stop_gradient(bits), uniform.astype(bits.dtype), per_round)
    has_load = _load_chances(bits)

    @jax.checkpoint
    def image(times: Float[Array, "groups patterns"]) -> Array:
        grid = _nodes(times, nodes)
        later = jnp.clip((times[..., None] - grid[:-1]) / jnp.diff(grid), 0, 1)  # [groups, patterns, nodes - 1]

        def exceeds(patterns: np.ndarray) -> Array:
            chance = jnp.einsum("gfp,gpn->gfn", chances[..., patterns], later[:, patterns], precision="highest")
            return chance.reshape(filters, -1)

        if rounds is None:
            over = _over_in_order(exceeds(np.arange(len(loads))), per_round)
        else:
            with_load = jnp.stack([exceeds(patterns) for patterns in by_load], 1)
            count = -(-filters // per_round)
            by_draw = jax.vmap(lambda rounds: _over_by_load(with_load, has_load, rounds, per_round, count))
            over = by_draw(rounds).mean(0)
        expected = jnp.diff(grid) @ over
        if length < _MOST_NODES:
            return expected
        # Where all bits are certain, lines will not do. What they err by there, they err by with the chance of that.
        likely = jax.lax.stop_gradient(chances).argmax(-1)
        certainty = multiply_along(jnp.take_along_axis(chances, likely[..., None], 2).reshape(-1), 0)
        exact = jnp.take_along_axis(times, likely, 1).reshape(-1)
        lines = jnp.take_along_axis(later, likely[..., None], 1).reshape(filters, -1)
        if rounds is not None:
            order = jnp.argsort(-jnp.asarray(loads)[likely].reshape(-1), stable=True)
            exact, lines = exact[order], lines[order]
        error = jnp.diff(grid) @ _over_in_order(lines, per_round) - cut_rounds(exact, per_round).max(1).sum()
        return expected - certainty * error

    return jax.lax.map(image, table.max(2).astype(weights.dtype))


def _load_chances(bits: Float[Array, "*batch bits"]) -> Float[Array, "*batch bits+1"]:
    """Returns the chance of each number of ones among independent bits."""

    def step(chances: Array, bit: Array) -> tuple[Array, None]:
        more = jnp.pad(chances[..., :-1], [(0, 0)] * bit.ndim + [(1, 0)])
        return chances * (1 - bit)[..., None] + more * bit[..., None], None

    none = jnp.zeros((*bits.shape[:-1], bits.shape[-1] + 1), bits.dtype).at[..., 0].set(1)
    return jax.lax.scan(step, none, jnp.moveaxis(bits, -1, 0))[0]


def _rounds_by_load(
    bits: Float[Array, "filters slots"], uniform: Float[Array, "draws filters"], per_round: int
) -> Int[Array, "draws filters loads"]:
    """Returns the round that a filter of each load would run in, among the drawn loads of the others."""
    filters, slots = bits.shape
    at_most = jnp.cumsum(_load_chances(bits), 1)[:, :-1]
    drawn = (uniform[..., None] > at_most).sum(-1)  # [draws, filters]
    # One number for load and index: filters run in its order.
    index = np.arange(filters)
    every = (slots - np.arange(slots + 1)) * filters + index[:, None]  # [filters, loads]
    taken = (slots - drawn) * filters + index

    def ahead(taken: Array) -> Array:
        others = jnp.searchsorted(jnp.sort(taken), every.reshape(-1)).reshape(every.shape)
        return others - (taken[:, None] < every)

    return jax.vmap(ahead)(taken) // per_round


def _nodes(times: Float[Array, "groups patterns"], nodes: int) -> Float[Array, " nodes"]:
    """Returns the cycles to know chances at: none, and from the fewest of any pattern with bits to the most."""
    fewest, most = times[:, 1:].min(), times.max()
    step = jnp.maximum((most - fewest) / max(nodes - 2, 1), 1)
    return jnp.concatenate([jnp.zeros(1, times.dtype), fewest + step * np.arange(nodes - 1)])


def _over_in_order(exceeds: Float[Array, "filters nodes"], per_round: int) -> Float[Array, " nodes"]:
    """Returns how many rounds are expected to exceed each node, from the chances of filters that run as they come."""
    rounds = cut_rounds(1 - exceeds.T, per_round, filler=1)  # [nodes, rounds, per_round]
    return (1 - multiply_along(rounds, -1)).sum(1)


def _over_by_load(
    exceeds: Float[Array, "filters loads nodes"],
    has_load: Float[Array, "filters loads"],
    rounds: Int[Array, "filters loads"],
    per_round: int,
    count: int,
) -> Float[Array, " nodes"]:
    """Returns how many rounds are expected to exceed each node, where a filter's load says which round it runs in.

    Filters are independent here, so how many are in a round varies around what it holds. That takes the expected
    product of their chances to stay below off the product for as many as there are; to second order, by the variance of
    their number and the mean number, times the logarithm of such a chance.

    Args:
        exceeds: Chances of a load and of more cycles than a node.
        has_load: Chances of a load.
        rounds: The round that a filter of each load would run in.
        per_round: Filters of a round.
        count: Rounds.
    """
    inside = (rounds[..., None] == np.arange(count)).astype(exceeds.dtype)  # [filters, loads, rounds]
    member = jnp.einsum("kl,klr->kr", has_load, inside, precision="highest")
    over = jnp.einsum("kln,klr->krn", exceeds, inside, precision="highest")
    variance = (member * (1 - member)).sum(0)[:, None]  # [rounds, 1]
    share = jnp.einsum("kr,krn->rn", 1 - member, over, precision="highest") * inverse(variance)
    log_below = jnp.log1p(-jnp.minimum(share, _MOST_SHARE))  # of those who may be in the round or not
    held = np.full(count, per_round)
    held[-1] = len(rounds) - per_round * (count - 1)
    missing = held[:, None] - member.sum(0)[:, None]
    within = multiply_along(1 - over, 0) * jnp.exp(missing * log_below - variance * log_below**2 / 2)
    return (1 - jnp.minimum(within, 1)).sum(0)
