"""One core: streams of lookahead masks, cut into blocks, in cycles per job (SPEC 4), for any architecture.

`pe_bins` is the meaning: one PE, one block. `count_tile` is `jax.vmap` of it over PEs, blocks and filters, compiled
for tiles of fixed shape: once per architecture, direction of streams and width of the tile, whatever the layers. Tiles
are padded with zero bits, which take no cycle; the one cycle that a block without work costs is added only for blocks
that exist. `lanes` does the same much faster for P = T = 3.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from phantom_jax.arch import Phantom2D
from phantom_jax.exact.blocks import Blocks, rotate
from phantom_jax.exact.jobs import JobCycles
from phantom_jax.exact.lowering import Streams, lower_activations, lower_weights
from phantom_jax.exact.selector import selector_bins
from phantom_jax.exact.tiles import compiled, run_tiles
from phantom_jax.layer import Layer

# Blocks by filters in a tile, and entries at most: large enough for few calls, small enough for a core's cache.
_TILE_BLOCKS = 1 << 15
_TILE_ENTRIES = 1 << 21
_TILE_FILTERS = (1, 8, 64)  # tiles come in these widths: depthwise, grouped, and everything else
_LONG_LOOKAHEAD = 64  # a longer block is cut down to the stream's length, in powers of two


def pe_bins(
    kernel: UInt[Array, "lookahead words"], window: UInt[Array, "lookahead words"], selector: str, threads: int
) -> Int[Array, ""]:
    """Returns the cycles until one PE has issued all its entries of one block, `bins(p)` of SPEC 4.3.

    Args:
        kernel: The kernel bits that this PE sees at each lookahead mask of the block.
        window: The window bits likewise.
        selector: The top-down selector.
        threads: T.
    """
    counts = jax.lax.population_count(kernel & window)
    # A word's count fits its own type; several words only occur where threads exceed 32.
    counts = counts[:, 0] if counts.shape[1] == 1 else counts.astype(jnp.uint32).sum(1)
    return selector_bins(selector, threads)(counts)


def count_tile(
    kernels: UInt[Array, "units phases pes words filters"],
    windows: UInt[Array, "units lookahead pes words"],
    selector: str,
    threads: int,
) -> tuple[Int[Array, "units filters"], Int[Array, "units filters"]]:
    """Counts a tile of blocks by filters: the most bins over PEs, and the sum of bins over PEs.

    The kernel bits of a stream along positions repeat with the period of the rotation; they are given for that many
    lookahead masks (`phases`) and repeated here.
    """
    lookahead, phases = windows.shape[1], kernels.shape[1]
    kernels = jnp.concatenate([kernels] * -(-lookahead // phases), axis=1)[:, :lookahead]
    pe = functools.partial(pe_bins, selector=selector, threads=threads)
    filters = jax.vmap(pe, in_axes=(-1, None))
    units = jax.vmap(filters, in_axes=(0, 0))
    bins = jax.vmap(units, in_axes=(2, 2))(kernels, windows)  # [P, units, filters]
    return bins.max(0), bins.sum(0, dtype=jnp.int32)


class WordCounter:
    """Counts the job cycles of a layer, image by image, with entries as words of T bits."""

    def __init__(self, layer: Layer, streams: Streams, arch: Phantom2D) -> None:
        self._layer, self._streams, self._arch = layer, streams, arch
        self._kernels = lower_weights(layer, arch)
        loads = self._kernels.chunk_loads.swapaxes(1, 2).reshape(self._streams.filters, -1)  # [K, G]
        # Ones among the kernel bits: of each job, or of all jobs of a filter where streams run along chunks.
        self.loads = loads if self._streams.axis == "positions" else loads.sum(1, keepdims=True)
        self.nonzero_weights = int(self.loads.sum())

    def count(self, image: int, segments: list[tuple[int, int]]) -> JobCycles:
        """Counts the cycles of every job for one image, its stream cut into the given non-empty segments."""
        arch, streams, kernels = self._arch, self._streams, self._kernels
        windows = lower_activations(self._layer, arch, image)
        lookahead = arch.lookahead
        if lookahead > _LONG_LOOKAHEAD:
            lookahead = min(lookahead, max(_LONG_LOOKAHEAD, _power_of_two(streams.length)))
        cuts = Blocks.of(segments, lookahead, trim=False)  # of one shape for streams of any length
        segment_blocks = np.bincount(cuts.segment)
        blocks = len(cuts.segment)
        filters_per_group = streams.filters // streams.groups

        # Units are blocks of jobs, [groups * J * blocks]. A unit's kernel row depends on its chunk (streams along
        # positions) or on its group and block (streams along chunks).
        if streams.axis == "positions":
            masks = windows.words.reshape(-1, streams.positions, *windows.words.shape[3:])
            rows = kernels.words.reshape(-1, 1, *kernels.words.shape[2:])
            rows = np.repeat(rows, arch.pes, axis=1) if arch.intra_balance else rows
            unit_rows = np.repeat(np.arange(streams.groups * streams.chunks), blocks)
        else:
            masks = windows.words.swapaxes(1, 2).reshape(-1, streams.chunks, *windows.words.shape[3:])
            rows = cuts.take(kernels.words, 1).reshape(-1, lookahead, *kernels.words.shape[2:])
            unit_rows = np.arange(streams.groups * blocks).reshape(streams.groups, 1, blocks)
            unit_rows = np.broadcast_to(unit_rows, (streams.groups, streams.jobs, blocks)).reshape(-1)
        units = cuts.take(masks, 1).reshape(-1, lookahead, *masks.shape[2:])
        rows, units = rotate(rows, arch.intra_balance, 1), rotate(units, arch.intra_balance, 1)

        # A unit belongs to a job's segment; sums over units are kept per segment, as [groups * J * segments, K/groups].
        unit_segments = np.repeat(
            np.arange(streams.groups * streams.jobs * len(segments)),
            np.tile(segment_blocks, streams.groups * streams.jobs),
        )
        worked = np.zeros((streams.groups * streams.jobs * len(segments), filters_per_group), np.int64)
        working_blocks = np.zeros_like(worked)
        bins = 0
        for ids, filters, tile_worked, tile_working, tile_bins in _tiles(rows, units, unit_rows, unit_segments, arch):
            worked[ids, filters] += tile_worked
            working_blocks[ids, filters] += tile_working
            bins += tile_bins

        def by_filter(sums: np.ndarray) -> np.ndarray:
            sums = sums.reshape(streams.groups, streams.jobs, len(segments), filters_per_group)
            return sums.transpose(0, 3, 1, 2).reshape(streams.filters, streams.jobs, len(segments))

        bubbles = (self.loads > 0)[:, :, None] * segment_blocks - by_filter(working_blocks)
        return JobCycles(
            cycles=by_filter(worked) + bubbles,
            effectual=int((kernels.tap_sums * windows.tap_sums).sum()),
            bins=bins,
            worked=int(worked.sum()),
            bubbles=int(bubbles.sum()),
        )


def _tiles(
    rows: UInt[np.ndarray, "rows phases pes words filters"],
    units: UInt[np.ndarray, "units lookahead pes words"],
    unit_rows: Int[np.ndarray, " units"],
    unit_segments: Int[np.ndarray, " units"],
    arch: Phantom2D,
) -> Iterator[
    tuple[Int[np.ndarray, " ids"], slice, Int[np.ndarray, "ids filters"], Int[np.ndarray, "ids filters"], int]
]:
    """Counts all units by all filters, tile by tile.

    Yields, per tile: segments, filters, their cycles in blocks with work, their blocks with work, and the sum of bins.
    """
    filters = rows.shape[-1]
    width = next((width for width in _TILE_FILTERS if width >= filters), _TILE_FILTERS[-1])
    height = min(_TILE_BLOCKS, _TILE_ENTRIES // (units.shape[1] * units.shape[2])) // width
    height = _power_of_two(max(1, height) + 1) // 2  # rounded down
    alive = np.asarray(units.reshape(len(units), -1).any(1))  # units without a non-zero activation have no work

    def fill(tile: tuple[int, Int[np.ndarray, " tile"]]) -> tuple[np.ndarray, np.ndarray]:
        first, chosen = tile
        last = min(first + width, filters)
        tile_kernels = np.zeros((height, *rows.shape[1:-1], width), rows.dtype)
        tile_kernels[: len(chosen), ..., : last - first] = rows[unit_rows[chosen], ..., first:last]
        tile_windows = np.zeros((height, *units.shape[1:]), units.dtype)
        tile_windows[: len(chosen)] = units[chosen]
        return tile_kernels, tile_windows

    def finish(tile: tuple[int, Int[np.ndarray, " tile"]], outputs: tuple[np.ndarray, np.ndarray]) -> tuple:
        first, chosen = tile
        last = min(first + width, filters)
        slowest = outputs[0][: len(chosen), : last - first]
        ids = unit_segments[chosen]
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        return (
            ids[starts],
            slice(first, last),
            np.add.reduceat(slowest, starts, axis=0, dtype=np.int64),
            np.add.reduceat(slowest > 0, starts, axis=0, dtype=np.int64),
            int(outputs[1].sum(dtype=np.int64)),
        )

    def tiles() -> Iterator[tuple[int, Int[np.ndarray, " tile"]]]:
        for first in range(0, filters, width):
            has_weights = np.asarray(rows[..., first : first + width].any(axis=(1, 2, 3, 4)))
            chosen = np.flatnonzero(alive & has_weights[unit_rows])
            for start in range(0, len(chosen), height):
                yield first, chosen[start : start + height]

    return run_tiles(compiled(count_tile, selector=arch.selector, threads=arch.threads), tiles(), fill, finish)


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()
