"""The selector as a Markov chain: counts at random in, distribution of bins out (SPEC 8).

Where the entries of a PE's block are independent, the automaton that reads their counts is a Markov chain over (bins so
far, state), and the distribution of bins is exact. States and bins are laid out along one axis, so that what a count
does to all of them is a shift by a few fixed distances, under masks; the transposed shifts give the gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phantom_jax.exact import Automaton, automaton
from phantom_jax.promotion import promotion

MOST_STATES = 1024  # of an automaton that is enumerated; beyond, kernels are sampled
_STAGE = 9  # entries until the chain moves to a larger layout: it starts with few bins and few states


def count_probabilities(bits: Float[Array, "*batch threads"]) -> Float[Array, "*batch threads+1"]:
    """Returns the distribution of an entry's count from the probabilities of its bits, which are independent."""
    flat = bits.reshape(-1, bits.shape[-1])  # few axes, as in `chunks.effectual_bits`
    counts = jnp.ones((len(flat), 1), bits.dtype)
    for thread in range(bits.shape[-1]):
        bit = flat[:, thread, None]
        nothing = jnp.zeros_like(counts[:, :1])
        counts = jnp.concatenate([counts, nothing], -1) * (1 - bit) + jnp.concatenate([nothing, counts], -1) * bit
    return counts.reshape(*bits.shape[:-1], -1)


def bins_distribution(
    counts: Float[Array, "lookahead counts units"], selector: str
) -> Float[Array, "units lookahead+1"]:
    """Returns the distribution of the bins that PEs need for a block, from the distributions of its entries' counts.

    Args:
        counts: Probability of each count, per entry in order, for as many PEs and blocks as there are units.
        selector: The top-down selector, with few enough states (`has_chain`).
    """
    lookahead, threads = counts.shape[0], counts.shape[1] - 1
    states = jnp.ones((counts.shape[2], 1), counts.dtype)  # no bin, and the state before any entry
    layout = None
    for start in range(0, lookahead, _STAGE):
        stop = min(start + _STAGE, lookahead)
        smaller, layout = layout, _layout(selector, threads, lookahead, stop)
        states = layout.enlarge(states, smaller)
        states = jnp.asarray(_run(states, counts[start:stop].transpose(0, 2, 1), layout))
    assert layout is not None
    return states.reshape(-1, layout.bins, layout.states).sum(2)


def has_chain(selector: str, threads: int, lookahead: int) -> bool:
    """Whether the selector has few enough states for its chain."""
    return automaton(selector, threads, lookahead, MOST_STATES) is not None


class _Layout:
    """Bins and states along one axis, bins slowest, for as many as `depth` entries can lead to."""

    def __init__(self, table: Automaton, depth: int) -> None:
        self.states = int(np.searchsorted(table.depth, depth, side="right"))
        self.bins = depth + 1
        after, opens = table.after[: self.states], table.opens[: self.states]
        # Where a count leads: a distance along the axis -> the states that it leads there from, and to.
        self.moves: list[dict[int, np.ndarray]] = []
        for count in range(after.shape[1]):
            distances: dict[int, np.ndarray] = {}
            for state, (target, opened) in enumerate(zip(after[:, count], opens[:, count], strict=True)):
                if 0 <= target < self.states:
                    distance = int(opened) * self.states + int(target) - state
                    distances.setdefault(distance, np.zeros(self.states, bool))[state] = True
            self.moves.append(distances)
        every = [distance for distances in self.moves for distance in distances]
        self.ahead, self.behind = max(0, *every), max(0, *(-distance for distance in every))

    @property
    def size(self) -> int:
        return self.bins * self.states

    def enlarge(self, states: Array, smaller: "_Layout | None") -> Array:
        bins, width = (smaller.bins, smaller.states) if smaller else (1, 1)
        states = states.reshape(-1, bins, width)
        return jnp.pad(states, ((0, 0), (0, self.bins - bins), (0, self.states - width))).reshape(-1, self.size)

    def push(self, states: Array, count: int) -> Array:
        """Moves each state to where an entry of this count leads."""
        padded = jnp.concatenate([_zeros(states, self.ahead), states, _zeros(states, self.behind)], 1)
        moved = jnp.zeros_like(states)
        for distance, sources in self.moves[count - 1].items():
            start = self.ahead - distance
            targets = np.tile(np.roll(sources, distance % self.states), self.bins)
            moved += padded[:, start : start + self.size] * targets.astype(states.dtype)
        return moved

    def pull(self, values: Array, count: int) -> Array:
        """Brings to each state what stands where an entry of this count leads: the transpose of `push`."""
        padded = jnp.concatenate([_zeros(values, self.behind), values, _zeros(values, self.ahead)], 1)
        moved = jnp.zeros_like(values)
        for distance, sources in self.moves[count - 1].items():
            start = self.behind + distance
            moved += padded[:, start : start + self.size] * np.tile(sources, self.bins).astype(values.dtype)
        return moved


def _zeros(like: Array, width: int) -> Array:
    return jnp.zeros((like.shape[0], width), like.dtype)


@functools.cache
def _layout(selector: str, threads: int, lookahead: int, depth: int) -> _Layout:
    table = automaton(selector, threads, lookahead, MOST_STATES)
    assert table is not None
    return _Layout(table, depth)


def _step(states: Array, count_probability: Array, layout: _Layout) -> Array:
    after = states * count_probability[:, :1]
    for count in range(1, count_probability.shape[1]):
        after += layout.push(states, count) * count_probability[:, count : count + 1]
    return after


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _run(states: Array, counts: Array, layout: _Layout) -> Array:
    """Reads entries `[entries, units, T + 1]`, one after the other."""
    return jax.lax.scan(lambda states, entry: (_step(states, entry, layout), None), states, counts)[0]


@promotion()
def _run_forward(states: Array, counts: Array, layout: _Layout) -> tuple[Array, tuple[Array, Array]]:
    after, before = jax.lax.scan(lambda states, entry: (_step(states, entry, layout), states), states, counts)
    return after, (before, counts)


@promotion()
def _run_backward(layout: _Layout, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    def step(values: Array, entry: tuple[Array, Array]) -> tuple[Array, Array]:
        states, probabilities = entry
        pulled = [values, *(layout.pull(values, count) for count in range(1, probabilities.shape[1]))]
        by_count = jnp.stack([(states * moved).sum(1) for moved in pulled], 1)
        return sum(probabilities[:, c : c + 1] * moved for c, moved in enumerate(pulled)), by_count  # pyright: ignore

    return jax.lax.scan(step, gradient, residuals, reverse=True)


_run.defvjp(_run_forward, _run_backward)
