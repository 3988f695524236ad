"""The fast form of the core for P = T = 3: sixty-four blocks at once, one in each bit of a word (SPEC 4).

A *lane* is one bit of a 64-bit word and runs one block of one filter. The entries of a block are bits, the state of the
selector is kept as bit planes (`sliced_selector`), and so is the number of bins, so a whole block is some
thousand bitwise instructions, each of which serves all lanes of a vector register. XLA compiles them to one loop
without any intermediate array. Two rules keep it so: the loop writes one word per 64 lanes and nothing else, since
XLA would compute everything again for each further output; and the loop over tiles is one of XLA's own, which keeps
what comes before and after from being merged into it.

The lanes of a word form four *fields* of sixteen. A field holds consecutive blocks of one job's segment, so that its
cycles can be summed on the spot. `lane_core` packs layers into tiles of this form and adds up what comes out.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt8, UInt16, UInt64

from phantom_jax.exact.lanes.selector import sliced_selector

PES = THREADS = 3
SLOTS = PES * THREADS
LONGEST_LOOKAHEAD = 64  # a field's cycles, up to 16 * 64, need 10 bits beyond the one that each block takes at least
FIELD = 16  # lanes per field
FIELDS = 4  # fields per word

TILE_FIELDS, TILE_FILTERS = 32, 64  # of streams along positions: fields of windows, and filters
TILES, WINDOW_TILES = 16, 8  # per call: tiles, and windows that they may choose from
# A tile of streams along chunks: a word's fields, bytes of eight filters, and at most this many positions.
CHUNK_TILE_BYTES, CHUNK_TILE_POSITIONS = 32, LONGEST_LOOKAHEAD

# Longer blocks step in a loop: one expression of them is more than XLA compiles well.
_UNROLLED_LOOKAHEAD = {"in_order": 27, "out_of_order": 32}
_EACH_FIELD = 0x0001_0001_0001_0001
_TOTAL_BITS = 6  # above the ten bits of its cycles, a field holds this many bits of the word's totals
_BINS_BITS = 14  # of the totals, for bins; the rest counts blocks without work


def count_positions(
    windows: UInt8[Array, "windows fields 9 16 lookahead"],
    kernels: UInt8[Array, "tiles fields 2 8 filters"],
    chosen: Array,
    count: Array,
    selector: str,
    rotate: bool,
) -> tuple[UInt16[Array, "tiles fields 8 filters"], UInt64[Array, " 2"], UInt16[Array, "windows fields 8 9"]]:
    """Counts tiles of streams along positions: each field is sixteen blocks of one chunk, for each filter.

    Args:
        windows: Window bits per slot, block and lookahead mask; bit c of a byte belongs to chunk c of eight.
        kernels: Kernel bits of the eight chunks, slots 0 to 7 in a byte and slot 8 in another.
        chosen: For each tile, which of the windows it takes.
        count: How many of the tiles to count.
        selector: The top-down selector.
        rotate: Level-1 balance.

    Returns:
        The cycles of each field, one for a block without work; the sum of bins over PEs, and the blocks without work;
        and for each field, chunk and slot how many window bits are set.
    """
    words = windows.shape[1] // FIELDS

    def planes_of_windows(tile: Array) -> Array:
        tile = tile.reshape(words, FIELDS, SLOTS, 2, 8, -1)
        return jnp.stack(_transpose_bytes(_join_fields(tile, 1, 3)), axis=1)  # [words, 8, 9, L]

    streams = lax.map(planes_of_windows, windows)
    fields = [np.uint64(0xFFFF << FIELD * field) for field in range(FIELDS)]
    window_sums = [lax.population_count(streams & mask).sum(-1, dtype=jnp.uint64) for mask in fields]
    streams = streams.transpose(0, 4, 3, 1, 2).reshape(len(windows), -1, SLOTS, words * 8, 1)

    def count_tile(tile: Array, words_so_far: Array) -> Array:
        bytes_ = lax.dynamic_index_in_dim(kernels, tile, 0, keepdims=False).astype(jnp.uint64)
        bytes_ = bytes_.reshape(words, FIELDS, 2, 8, -1)
        low, high = jnp.moveaxis(_or(bytes_[:, field] << FIELD * field for field in range(FIELDS)), 1, 0)
        low, high = lax.optimization_barrier((low.reshape(words * 8, -1), high.reshape(words * 8, -1)))
        one = jnp.uint64(_EACH_FIELD)
        taps = jnp.stack([(low >> slot & one) * 0xFFFF for slot in range(8)] + [(high & one) * 0xFFFF])
        stream = lax.dynamic_index_in_dim(streams, chosen[tile], 0, keepdims=False)
        taps, stream = lax.optimization_barrier((taps, stream))
        bins = _bins(stream, lambda plane, slot: plane & taps[slot], selector, rotate)
        return lax.dynamic_update_index_in_dim(words_so_far, _summary(bins), tile, 0)

    shape = (len(kernels), words * 8, kernels.shape[-1])
    summaries = lax.fori_loop(0, count, count_tile, jnp.zeros(shape, jnp.uint64))
    cycles, totals = _unpack(summaries)  # [4, tiles, words * 8, filters]
    cycles = cycles.reshape(FIELDS, len(kernels), words, 8, -1).transpose(1, 2, 0, 3, 4)
    by_field = jnp.stack(window_sums, axis=2)  # [windows, words, 4, 8, 9]
    by_field = by_field.reshape(len(windows), -1, 8, SLOTS).astype(jnp.uint16)
    return cycles.reshape(kernels.shape[0], -1, *kernels.shape[3:]), totals, by_field


def count_chunks(
    kernels: UInt8[Array, "4 16 lookahead 9 bytes"],
    windows: UInt64[Array, "positions lookahead 9"],
    count: Array,
    selector: str,
    rotate: bool,
) -> tuple[UInt16[Array, "positions 4 bytes 8"], UInt64[Array, " 2"]]:
    """Counts a tile of streams along chunks: each field is sixteen blocks of one filter's stream, for each position.

    Args:
        kernels: Kernel bits per field, block, lookahead mask and slot; bit f of a byte belongs to filter f of eight.
        windows: Window bits, with a bit for each block of the four fields.
        count: How many of the positions to count.
        selector: The top-down selector.
        rotate: Level-1 balance.

    Returns:
        The cycles of each position, field and filter, one for a block without work; and the sum of bins over PEs with
        the blocks without work.
    """
    bytes_ = kernels.reshape(FIELDS, 2, 8, *kernels.shape[2:])
    stream = jnp.stack(_transpose_bytes(_join_fields(bytes_, 0, 1)), axis=2)  # [L, 9, 8, bytes]

    def count_position(position: Array, words_so_far: Array) -> Array:
        window = lax.dynamic_index_in_dim(windows, position, 0, keepdims=False)
        kernel, window = lax.optimization_barrier((stream, window))
        bins = _bins((kernel, window), lambda planes, _: planes[0] & planes[1], selector, rotate)
        return lax.dynamic_update_index_in_dim(words_so_far, _summary(bins), position, 0)

    summaries = jnp.zeros((len(windows), *stream.shape[2:]), jnp.uint64)
    summaries = lax.fori_loop(0, count, count_position, summaries)
    cycles, totals = _unpack(summaries)  # [4, positions, 8, bytes]
    return cycles.transpose(1, 0, 3, 2), totals


def _bins(stream: Any, gate: Callable[[Any, int], Array], selector: str, rotate: bool) -> list[list[Array]]:
    """Returns the bins of each PE, as bit planes, lowest first.

    Args:
        stream: Arrays `[L, 9, ...]` of what the lookahead masks hold.
        gate: From what the stream holds for one mask and slot, and the slot, to the entries' bits in all lanes.
        selector: The top-down selector.
        rotate: Level-1 balance: PE p takes column (p + l) mod 3 of mask l.
    """
    lookahead = jax.tree.leaves(stream)[0].shape[0]

    def entry(masks: Any, mask: int, pe: int) -> list[Array]:
        column = (pe + mask) % PES if rotate else pe
        return [
            gate(jax.tree.map(lambda array, slot=slot: _plane(array, mask, slot), masks), slot)
            for slot in range(column * THREADS, column * THREADS + THREADS)
        ]

    if lookahead <= _UNROLLED_LOOKAHEAD[selector]:
        return [_unrolled([entry(stream, mask, pe) for mask in range(lookahead)], selector) for pe in range(PES)]

    start, step, uncounted = sliced_selector(selector)
    zeros = jnp.zeros_like(entry(stream, 0, 0)[0])
    # Three masks at a time, since columns then fall to the same PEs each time; masks of zeros change nothing.
    missing = -lookahead % PES
    filled = jax.tree.map(lambda array: jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)), stream)
    thirds = jax.tree.map(lambda array: array.reshape(-1, PES, *array.shape[1:]), filled)

    def step_three(carry: list, masks: Any) -> tuple[list, None]:
        after = []
        for pe, (state, total) in enumerate(carry):
            for mask in range(PES):
                state, opened = step(state, *entry(masks, mask, pe))
                total = _add_bit(total, opened)
            after.append((state, total))
        return after, None

    blank = (start(zeros, lookahead), [zeros] * lookahead.bit_length())
    carry, _ = lax.scan(step_three, [blank] * PES, thirds)
    return [functools.reduce(_add_bit, uncounted(state), total) for state, total in carry]


def _plane(array: Array, mask: int, slot: int) -> Array:
    """Returns `array[mask, slot]`, which takes longer to trace."""
    return lax.squeeze(
        lax.slice(array, (mask, slot, *[0] * (array.ndim - 2)), (mask + 1, slot + 1, *array.shape[2:])), (0, 1)
    )


@functools.partial(jax.jit, static_argnames="selector", inline=True)  # traced once for all PEs
def _unrolled(entries: list[list[Array]], selector: str) -> list[Array]:
    """Returns the bins of one PE, as bit planes, from the bits of all its entries in order."""
    start, step, uncounted = sliced_selector(selector)
    zeros = jnp.zeros_like(entries[0][0])
    state, total = start(zeros, 0), _CarrySaveTotal()
    for before, entry in enumerate(entries):
        if selector == "out_of_order" and before + 1 >= 1 << len(state) - 1:
            state = [*state, state[-1]]  # the number may need one more digit now: extends the sign
        state, opened = step(state, *entry)
        total.add(opened)
    for opened in uncounted(state):
        total.add(opened)
    return total.planes(zeros, len(entries).bit_length())


class _CarrySaveTotal:
    """Counts words of single bits, lane by lane, in a tree of full adders."""

    def __init__(self) -> None:
        self._levels: list[list[Array]] = []

    def add(self, word: Array, level: int = 0) -> None:
        """Adds a word whose bits count 2^level each."""
        if level == len(self._levels):
            self._levels.append([])
        pending = self._levels[level]
        pending.append(word)
        if len(pending) == 3:
            a, b, c = pending
            pending[:] = [a ^ b ^ c]
            self.add(b ^ ((a ^ b) & (b ^ c)), level + 1)

    def planes(self, zeros: Array, digits: int) -> list[Array]:
        """Returns the total as bit planes, lowest first."""
        level = 0
        while level < len(self._levels):
            if len(self._levels[level]) == 2:
                self.add(zeros, level)
            level += 1
        return [word for (word,) in self._levels[:digits]] + [zeros] * (digits - len(self._levels))


def _add_bit(total: list[Array], word: Array) -> list[Array]:
    """Adds a word of single bits to bit planes, lowest first."""
    planes = []
    for plane in total:
        planes.append(plane ^ word)
        word &= plane
    return planes


def _summary(bins: list[list[Array]]) -> UInt64[Array, "..."]:
    """Packs what is to be known of 64 blocks into one word: cycles per field, and totals of bins and empty blocks."""
    slowest = functools.reduce(_larger, bins)
    working = _or(slowest)
    slowest = [slowest[0] | ~working, *slowest[1:]]  # a block without work lasts one cycle
    beyond_one = sum(_sum_fields(plane) << digit for digit, plane in enumerate(slowest)) - np.uint64(
        FIELD * _EACH_FIELD
    )
    totals = sum(lax.population_count(plane) << digit for planes in bins for digit, plane in enumerate(planes))
    totals |= lax.population_count(~working) << _BINS_BITS
    piece = (1 << _TOTAL_BITS) - 1
    pieces = [totals >> field * _TOTAL_BITS & piece for field in range(FIELDS)]
    return beyond_one | _or(bits << FIELD * field + FIELD - _TOTAL_BITS for field, bits in enumerate(pieces))


def _unpack(summaries: UInt64[Array, "..."]) -> tuple[UInt16[Array, "4 ..."], UInt64[Array, " 2"]]:
    """Returns the cycles of each field, and the totals over all words; words of zeros, never counted, add nothing."""
    cycles, totals = [], jnp.zeros_like(summaries)
    for field in range(FIELDS):
        part = summaries >> FIELD * field & 0xFFFF
        cycles.append((part & ((1 << FIELD - _TOTAL_BITS) - 1)).astype(jnp.uint16) + np.uint16(FIELD))
        totals |= part >> FIELD - _TOTAL_BITS << field * _TOTAL_BITS
    return jnp.stack(cycles), jnp.stack([(totals & ((1 << _BINS_BITS) - 1)).sum(), (totals >> _BINS_BITS).sum()])


def _larger(a: list[Array], b: list[Array]) -> list[Array]:
    """Returns the larger of two numbers in each lane."""
    first = jnp.zeros_like(a[0])  # where a is the larger
    for x, y in zip(a, b, strict=True):
        differ = x ^ y
        first = (x & differ) | (first & ~differ)
    return [y ^ ((x ^ y) & first) for x, y in zip(a, b, strict=True)]


def _sum_fields(word: Array) -> Array:
    """Returns how many bits are set in each field, in the field's place."""
    word = word - (word >> 1 & np.uint64(0x5555 * _EACH_FIELD))
    word = (word & np.uint64(0x3333 * _EACH_FIELD)) + (word >> 2 & np.uint64(0x3333 * _EACH_FIELD))
    word = (word + (word >> 4)) & np.uint64(0x0F0F * _EACH_FIELD)
    return (word + (word >> 8)) & np.uint64(0x00FF * _EACH_FIELD)


def _join_fields(bytes_: UInt8[Array, "..."], fields: int, halves: int) -> UInt64[Array, "8 ..."]:
    """Joins bytes to words, one for each block of half a field, from axes of 4 fields and of 2 halves by 8 blocks.

    The axis of blocks comes right after that of halves, and first in the result.
    """
    words = _or(
        lax.index_in_dim(lax.index_in_dim(bytes_, half, halves, False), field, fields, False).astype(jnp.uint64)
        << FIELD * field + 8 * half
        for field in range(FIELDS)
        for half in range(2)
    )
    return jnp.moveaxis(words, halves - 1, 0)


def _transpose_bytes(words: UInt64[Array, "8 ..."]) -> list[Array]:
    """Transposes the bits in the bytes of eight words: bit j of a byte of word i becomes bit i of that of word j."""
    rows = [words[i] for i in range(8)]
    for distance, mask in ((4, 0x0F0F), (2, 0x3333), (1, 0x5555)):
        for i in range(8):
            if i & distance:
                continue
            a, b = rows[i], rows[i + distance]
            swapped = (a >> distance ^ b) & np.uint64(mask * _EACH_FIELD)
            rows[i], rows[i + distance] = a ^ swapped << distance, b ^ swapped
    return rows


def _or(words: Any) -> Array:
    return functools.reduce(jnp.bitwise_or, words)
