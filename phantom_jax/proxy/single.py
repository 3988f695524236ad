"""Layers of one chunk, such as depthwise ones: a column's time is a function of one kernel pattern (SPEC 8.3).

Its whole distribution is known, together with that of the filter's load. So rounds need no moments: the chance that a
round takes at most t cycles is a product over filters. Level-2 balance puts a filter into a round by its load and by
the others': how many of these come first has a mean and a variance, mostly shared by all filters.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phantom_jax.proxy.jobs.chain import count_probabilities
from phantom_jax.proxy.jobs.patterns import pattern_bits, pattern_probabilities
from phantom_jax.proxy.numerics import below_chance, inverse, multiply_along, standard_deviation
from phantom_jax.proxy.rounds.maxima import SHARED, SHARED_WEIGHTS, cut_rounds

_MOST_NODES = 128  # of distributions over cycles; where there are more cycles, in between they are lines
_SHARED_PART = 0.75  # of the variance of how many filters come first: mostly the same ones for all
_MOST_SHARE = 0.999  # of filters above a node; of all, a logarithm would be infinite


def single_job_cycles(
    table: Float[Array, "batch groups segments patterns"],
    weights: Float[Array, "groups slots filters"],
    by_load: bool,
    per_round: int,
    length: int,
) -> Float[Array, " batch"]:
    """Returns the expected cycles of a layer of one chunk per filter, for each image.

    Args:
        table: Cycles of each segment, which run on cores of their own.
        weights: Probabilities of the kernel bits of each group's filters.
        by_load: Whether filters run by their loads, or else as they come.
        per_round: Filters of a round.
        length: Masks of a segment, no fewer than its cycles.
    """
    chances = jax.vmap(pattern_probabilities)(weights)  # [groups, K/groups, patterns]
    filters = chances.shape[0] * chances.shape[1]
    loads = pattern_bits(weights.shape[1]).sum(0)
    of_load = [np.flatnonzero(loads == load) for load in range(loads.max() + 1)]
    nodes = min(length + 1, _MOST_NODES)
    has_load = count_probabilities(weights.swapaxes(1, 2).reshape(filters, -1))
    members = _members(has_load, per_round) if by_load else None

    @jax.checkpoint
    def image(times: Float[Array, "groups patterns"]) -> Array:
        grid = _nodes(times, nodes)
        later = jnp.clip((times[..., None] - grid[:-1]) / jnp.diff(grid), 0, 1)  # [groups, patterns, nodes - 1]

        def exceeds(patterns: np.ndarray) -> Array:
            chance = jnp.einsum("gfp,gpn->gfn", chances[..., patterns], later[:, patterns], precision="highest")
            return chance.reshape(filters, -1)

        if members is None:
            over = _over_in_order(exceeds(np.arange(len(loads))), per_round)
        else:
            with_load = jnp.stack([exceeds(patterns) for patterns in of_load], 1)
            by_node = jax.vmap(lambda members: _over_by_load(with_load, has_load, members, per_round))(members)
            over = jnp.asarray(SHARED_WEIGHTS, by_node.dtype) @ by_node
        expected = jnp.diff(grid) @ over
        if length < _MOST_NODES:
            return expected
        # Where all bits are certain, lines will not do. What they err by there, they err by with the chance of that.
        likely = jax.lax.stop_gradient(chances).argmax(-1)
        certainty = multiply_along(jnp.take_along_axis(chances, likely[..., None], 2).reshape(-1), 0)
        exact = jnp.take_along_axis(times, likely, 1).reshape(-1)
        lines = jnp.take_along_axis(later, likely[..., None], 1).reshape(filters, -1)
        if by_load:
            order = jnp.argsort(-jnp.asarray(loads)[likely].reshape(-1), stable=True)
            exact, lines = exact[order], lines[order]
        error = jnp.diff(grid) @ _over_in_order(lines, per_round) - cut_rounds(exact, per_round).max(1).sum()
        return expected - certainty * error

    return jax.lax.map(image, table.max(2).astype(weights.dtype))


def _members(has_load: Float[Array, "filters loads"], per_round: int) -> Float[Array, "shared filters loads rounds"]:
    """Returns the chances of a filter of each load to run in each round, given a part that all filters share.

    So many filters come before it as have a larger load, or an equal one and a lower index: a sum of independent bits.
    """
    filters = len(has_load)
    at_least = jnp.cumsum(has_load[:, ::-1], 1)[:, ::-1]
    above = at_least - has_load

    def others(earlier: Array, later: Array) -> Array:  # sums over filters of lower and of higher index
        return jnp.cumsum(earlier, 0) - earlier + later.sum(0) - jnp.cumsum(later, 0)

    ahead = others(at_least, above)
    spread = standard_deviation(jnp.maximum(others(at_least * (1 - at_least), above * (1 - above)), 0))
    ends = jnp.arange(1, -(-filters // per_round)) * per_round - 0.5  # of all rounds but the last
    shared = jnp.asarray(SHARED * _SHARED_PART**0.5, ahead.dtype)[:, None, None] * spread
    distance = ends - (ahead + shared)[..., None]
    before = below_chance(distance, (spread * (1 - _SHARED_PART) ** 0.5)[..., None])
    return jnp.diff(before, axis=-1, prepend=0, append=1)


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
    members: Float[Array, "filters loads rounds"],
    per_round: int,
) -> Float[Array, " nodes"]:
    """Returns how many rounds are expected to exceed each node, where a filter's load says which round it runs in.

    Filters are independent here, so how many are in a round varies around what it holds. That takes the expected
    product of their chances to stay below off the product for as many as there are; to second order, by the variance of
    their number and the mean number, times the logarithm of such a chance.

    Args:
        exceeds: Chances of a load and of more cycles than a node.
        has_load: Chances of a load.
        members: Chances of a filter of each load to be in a round.
        per_round: Filters of a round.
    """
    member = jnp.einsum("kl,klr->kr", has_load, members, precision="highest")
    over = jnp.einsum("kln,klr->krn", exceeds, members, precision="highest")
    variance = jnp.maximum(member * (1 - member), 0).sum(0)[:, None]  # [rounds, 1]
    share = jnp.einsum("kr,krn->rn", 1 - member, over, precision="highest") * inverse(variance)
    log_below = jnp.log1p(-jnp.clip(share, 0, _MOST_SHARE))  # of those who may be in the round or not
    held = np.full(members.shape[-1], per_round)
    held[-1] = len(members) - per_round * (len(held) - 1)
    missing = held[:, None] - member.sum(0)[:, None]
    within = multiply_along(1 - over, 0) * jnp.exp(missing * log_below - variance * log_below**2 / 2)
    return (1 - jnp.minimum(within, 1)).sum(0)
