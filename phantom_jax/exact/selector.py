"""The top-down selector of one PE: entries of a block in, cycles out (SPEC 4.2).

Each cycle, a PE takes entries from its list, from the top, while they fit into its T threads. Cycles are therefore
bins of capacity T, and the two selectors are two classic rules of online bin packing: `in_order` stops at the first
entry that does not fit, which is *next fit*; `out_of_order` skips it, which is *first fit*. Entries of count 0
take no room.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

_BINS_PER_WORD = 32
_FULL_WORD = 0xFFFFFFFF


def selector_bins(selector: str, threads: int) -> Callable[[UInt[Array, " lookahead"]], Int[Array, ""]]:
    """Returns the function from the counts of one PE's entries, in order, to the cycles that they take."""
    if selector == "in_order":
        return functools.partial(_next_fit, threads=threads)
    return _first_fit_of_three if threads == 3 else functools.partial(_first_fit, threads=threads)


def issue_cycles(counts: Sequence[int], selector: str, threads: int) -> list[int]:
    """Returns the cycle, from 1, in which each entry of one PE's block issues; 0 for entries of count 0.

    In plain Python, one entry after the other: for pictures and explanations, where `selector_bins` only counts.

    Args:
        counts: Counts of the entries, in order; none above `threads`.
        selector: The top-down selector.
        threads: T.
    """
    free: list[int] = []  # free threads of each cycle so far
    issued = []
    for count in counts:
        if count == 0:
            issued.append(0)
            continue
        first = max(len(free) - 1, 0) if selector == "in_order" else 0
        cycle = next((cycle for cycle in range(first, len(free)) if count <= free[cycle]), len(free))
        if cycle == len(free):
            free.append(threads)
        free[cycle] -= count
        issued.append(cycle + 1)
    return issued


@dataclasses.dataclass(frozen=True, eq=False)
class Automaton:
    """The selector as a table: what an entry of count 1, 2, ... T does to the open bins.

    States stand in the order in which they are first met, so those that few entries lead to come first.
    """

    after: Int[np.ndarray, "states threads"]  # the next state, or -1 where no block is long enough to get there
    opens: Int[np.ndarray, "states threads"]  # 1 where the entry opens a bin, else 0
    depth: Int[np.ndarray, " states"]  # entries that it takes at least to reach the state


@functools.cache
def automaton(selector: str, threads: int, lookahead: int, most: int) -> Automaton | None:
    """Returns the selector's states over a block: the free threads of the open bins, in order of opening (SPEC 8).

    In order that is one number. Out of order it is a list, and the number of lists grows fast with T beyond 4.

    Args:
        selector: The top-down selector.
        threads: T.
        lookahead: Entries of a block.
        most: How many states are too many.

    Returns:
        The table, or None if there are more states than `most`.
    """
    states: dict[tuple[int, ...], int] = {(): 0}
    depth = [0]
    after: list[list[int]] = []
    opens: list[list[int]] = []
    reached: list[tuple[int, ...]] = [()]
    for state in reached:  # grows on the way
        after.append([])
        opens.append([])
        for count in range(1, threads + 1):
            if selector == "in_order":
                fits = 0 if state and count <= state[0] else None
                kept = ()  # a bin that is left is closed
            else:
                fits = next((index for index, free in enumerate(state) if count <= free), None)
                kept = state
            bins = (
                (*kept, threads - count) if fits is None else (*state[:fits], state[fits] - count, *state[fits + 1 :])
            )
            target = tuple(free for free in bins if free)
            if target not in states and depth[len(after) - 1] < lookahead:
                states[target] = len(states)
                depth.append(depth[len(after) - 1] + 1)
                reached.append(target)
                if len(states) > most:
                    return None
            after[-1].append(states.get(target, -1))
            opens[-1].append(int(fits is None))
    return Automaton(np.array(after), np.array(opens), np.array(depth))


def _next_fit(counts: UInt[Array, " lookahead"], threads: int) -> Int[Array, ""]:
    """In order: the state is the free threads of the open bin, and the bins so far."""
    dtype = _small_integer(max(threads, counts.shape[0]))

    def step(state: tuple[Array, Array], count: Array) -> tuple[tuple[Array, Array], None]:
        free, bins = state
        count = count.astype(dtype)
        fits = count <= free
        return (jnp.where(fits, free, dtype(threads)) - count, bins + ~fits), None

    start = jnp.zeros((), dtype)  # no bin is open, so the first entry with work opens one
    (_, bins), _ = jax.lax.scan(step, (start, start), counts)
    return bins.astype(jnp.int32)


def _first_fit_of_three(counts: UInt[Array, " lookahead"]) -> Int[Array, ""]:
    """Out of order with T = 3, as `_first_fit`, in constant time per entry.

    A count of 1 goes to the first bin with a free thread. So a bin with two free threads is only opened where no other
    bin is open, and which of several bins with one free thread is taken makes no difference. The state is thus
    one number: how many open bins have one free thread, or -1 for a single one that has two.
    """
    dtype = _small_integer(counts.shape[0])

    def step(state: tuple[Array, Array], count: Array) -> tuple[tuple[Array, Array], None]:
        spare, bins = state
        one, two, three = count == 1, count == 2, count == 3
        pair = spare < 0
        opens = three | (two & ~pair) | (one & (spare == 0))
        after_one = jnp.where(pair, dtype(1), spare - 1)
        after_two = jnp.where(pair, dtype(0), spare + 1)
        spare = jnp.where(one, after_one, jnp.where(two, after_two, spare))
        return (spare, bins + opens), None

    start = jnp.zeros((), dtype)
    (_, bins), _ = jax.lax.scan(step, (start, start), counts)
    return bins.astype(jnp.int32)


def _first_fit(counts: UInt[Array, " lookahead"], threads: int) -> Int[Array, ""]:
    """Out of order: the state is the free threads of every bin, bins as bits of words, counts as bit planes.

    Subtracting an entry's count from all bins at once tells where it fits; the lowest such bit is the first such bin,
    and the subtraction is then done there alone. Bins that no entry has entered still have T threads free.
    """
    planes = threads.bit_length()
    words = -(-counts.shape[0] // _BINS_PER_WORD)
    shape = (words,) if words > 1 else ()  # a single word needs no axis, which would keep XLA from vectorizing
    empty = [jnp.full(shape, _FULL_WORD if threads >> plane & 1 else 0, jnp.uint32) for plane in range(planes)]

    def step(free: list[Array], count: Array) -> tuple[list[Array], None]:
        count = count.astype(jnp.uint32)
        wanted = [-(count >> plane & 1) for plane in range(planes)]  # each 0 or all ones
        _, too_few = _subtract(free, wanted)
        first = _lowest_bit(~too_few) & functools.reduce(jnp.bitwise_or, wanted)
        free, _ = _subtract(free, [plane & first for plane in wanted])
        return free, None

    free, _ = jax.lax.scan(step, empty, counts)
    used = functools.reduce(jnp.bitwise_or, [now ^ before for now, before in zip(free, empty, strict=True)])
    return jax.lax.population_count(used).astype(jnp.int32).sum()


def _small_integer(largest: int) -> type[np.signedinteger]:
    """Returns a signed type for numbers up to `largest`: a byte if it will do, since more of them fit into a vector."""
    return np.int8 if largest < 128 else np.int32


def _subtract(minuend: list[Array], subtrahend: list[Array]) -> tuple[list[Array], Array]:
    """Subtracts numbers given as bit planes, lowest first; returns the difference and where it is negative."""
    borrow = jnp.uint32(0)
    difference = []
    for a, b in zip(minuend, subtrahend, strict=True):
        difference.append(a ^ b ^ borrow)
        borrow = (~a & (b | borrow)) | (b & borrow)
    return difference, borrow


def _lowest_bit(words: UInt[Array, "*words"]) -> UInt[Array, "*words"]:
    """Keeps only the lowest set bit of a number of one or several words, lowest word first."""
    lowest = words & -words
    if words.ndim == 0:
        return lowest
    return jnp.where(jnp.arange(words.shape[0]) == jnp.argmax(words != 0), lowest, 0)
