"""Job cycles by lanes: packs layers into tiles for `lanes` and adds up what comes out (SPEC 3 and 4, P = T = 3).

Both kinds of streams are packed alike: along the axis that becomes the lanes' *bytes* (chunks of a stream along
positions, filters of one along chunks) eight neighbors share a byte, which costs one pass over the masks; the kernel
then turns bytes by position into bytes by neighbor. Sixteen blocks of a segment make a field; fields are padded with
zero bits, and so are bytes, filters and tiles.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer, UInt8

from phantom_jax.arch import Phantom2D
from phantom_jax.exact.blocks import cut_blocks
from phantom_jax.exact.jobs import JobCycles
from phantom_jax.exact.lanes import kernels as lanes
from phantom_jax.exact.lowering import Streams
from phantom_jax.exact.tiles import compiled, run_tiles
from phantom_jax.layer import Layer, nonzero
from phantom_jax.windows import kernel_index, pad_spatial, tap_slices, window_view

_SLAB_ROWS = 255  # rows of weights whose bits are summed in a byte


def covers_arch(arch: Phantom2D) -> bool:
    """Whether an accelerator's jobs can be counted by lanes."""
    return (arch.pes, arch.threads) == (lanes.PES, lanes.THREADS) and arch.lookahead <= lanes.LONGEST_LOOKAHEAD


def covers(streams: Streams, arch: Phantom2D) -> bool:
    """Whether a layer's jobs are to be counted by lanes.

    Streams along chunks of many small groups are not: each group takes a tile of its own, mostly empty.
    """
    few = streams.groups > 1 and streams.filters // streams.groups < lanes.TILE_FILTERS
    return covers_arch(arch) and not (few and streams.axis == "chunks")


def lane_counter(layer: Layer, streams: Streams, arch: Phantom2D) -> "PositionCounter | ChunkCounter":
    """Returns what counts the job cycles of a layer, image by image."""
    return PositionCounter(layer, streams, arch) if streams.axis == "positions" else ChunkCounter(layer, streams, arch)


class _Fields:
    """Where the masks of a stream go: segments into blocks, sixteen blocks into a field."""

    def __init__(self, segments: list[tuple[int, int]], lookahead: int) -> None:
        self.length = lanes.FIELD * lookahead  # masks
        self.segments = segments
        self.blocks = np.bincount(cut_blocks(segments, lookahead)[1])  # per segment
        self.bounds, self.segment = cut_blocks(segments, self.length)  # of each field
        self.count = len(self.bounds)
        self.per_segment = np.bincount(self.segment)
        # A job lasts a cycle per mask at most, with those of blocks that do not exist, a field's.
        self.dtype = np.int32 if segments[-1][1] < 1 << 30 else np.int64
        self.padding = (self.per_segment * lanes.FIELD - self.blocks).astype(self.dtype)  # blocks that do not exist

    def spread(self, stream: np.ndarray, into: np.ndarray) -> None:
        """Copies a stream, axis -1 of `stream`, into fields, axes -2 and -1 of `into`; the rest of `into` stays."""
        first = 0
        for (start, stop), fields in zip(self.segments, self.per_segment, strict=True):
            whole = (stop - start) // self.length
            middle = start + whole * self.length
            full = stream[..., start:middle]
            into[..., first : first + whole, :] = full.reshape(*full.shape[:-1], whole, self.length)
            if middle < stop:
                into[..., first + whole, : stop - middle] = stream[..., middle:stop]
            first += fields


def _job_cycles(
    lasted: np.ndarray, loads: np.ndarray, fields: _Fields, working: int, bins: int, effectual: int
) -> JobCycles:
    """Removes padding blocks and jobs without weights.

    Args:
        lasted: Cycles of all fields, per filter, job and segment; one for each block without work.
        loads: Ones among the kernel bits, per filter and job or for all jobs of a filter alike.
        fields: The fields of each job.
        working: Blocks with work.
        bins: See `JobCycles`.
        effectual: See `JobCycles`.
    """
    dispatched = np.broadcast_to(loads > 0, lasted.shape[:2])
    cycles = (lasted - fields.padding) * dispatched[:, :, None]
    bubbles = int(np.count_nonzero(dispatched)) * int(fields.blocks.sum()) - working
    worked = int(cycles.sum()) - bubbles
    return JobCycles(cycles=cycles, effectual=effectual, bins=bins, worked=worked, bubbles=bubbles)


class PositionCounter:
    """Counts jobs that stream along positions, each a chunk.

    A chunk's slot is a kernel element (*tap*) of a channel, and which ones they are repeats: every `phases` channels,
    `classes` chunks begin anew, where phases / 9 = classes / taps in lowest terms. Chunks of a class have the same
    taps, of channels `phases` apart, so they share bytes: *row* r of a class is its chunk of the r-th such channels,
    group after group.
    """

    def __init__(self, layer: Layer, streams: Streams, arch: Phantom2D) -> None:
        self._layer, self._streams, self._arch = layer, streams, arch
        self._kernel = layer.weights.shape[:-2] if layer.is_conv else ()
        self._taps, channels = math.prod(self._kernel), layer.weights.shape[-2]
        common = math.gcd(lanes.SLOTS, self._taps)
        self._phases = lanes.SLOTS // common
        self._used_phases = min(self._phases, channels)
        self._classes = min(self._taps // common, streams.chunks)
        self._per_group = -(-channels // self._phases)  # rows
        self._rows = streams.groups * self._per_group
        self._row_bytes = -(-self._rows // 8)
        self._filters = streams.filters // streams.groups
        self._pack_kernels()

    def _slots(self) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
        """Yields (class, slot, phase, index into the kernel axes) of every slot that any chunk has."""
        for class_ in range(self._classes):
            for slot in range(lanes.SLOTS):
                phase, tap = divmod(class_ * lanes.SLOTS + slot, self._taps)
                if phase < self._used_phases:
                    yield class_, slot, phase, kernel_index(self._kernel, tap)

    def _pack_kernels(self) -> None:
        groups, filters = self._streams.groups, self._filters
        weights = nonzero(self._layer.weights)
        weights = weights.reshape(*weights.shape[:-1], groups, filters)
        # Non-zero weights per kernel element, channel of a group, and group.
        tap_sums = np.bitwise_count(np.packbits(weights, axis=-1)).sum(-1, dtype=np.int64)
        self.nonzero_weights = int(tap_sums.sum())
        weights = weights.view(np.uint8)
        tiles = -(-filters // lanes.TILE_FILTERS)
        packed = np.zeros((self._classes, self._row_bytes * 8, 2, tiles * lanes.TILE_FILTERS), np.uint8)
        self._tap_sums = np.zeros((self._classes, self._row_bytes * 8, lanes.SLOTS), np.int64)
        for class_, slot, phase, index in self._slots():
            bits = weights[index][phase :: self._phases]  # [channels, groups, filters]
            into = packed[class_, : self._rows, slot // 8, :filters].reshape(groups, self._per_group, filters)
            into[:, : len(bits)] |= bits.swapaxes(0, 1) << np.uint8(slot % 8)
            sums = tap_sums[index][phase :: self._phases]
            into = self._tap_sums[class_, : self._rows, slot].reshape(groups, self._per_group)
            into[:, : len(sums)] = sums.T
        loads = (np.bitwise_count(packed[:, :, 0]) + packed[:, :, 1])[:, : self._rows, :filters]
        self.loads = self._by_filter(loads[:, :, None])[:, :, 0].astype(np.int64)
        # [tiles of filters, bytes of rows, 2, 8, filters]
        packed = packed.reshape(self._classes, self._row_bytes, 8, 2, tiles, -1).transpose(4, 0, 1, 3, 2, 5)
        self._kernels = packed.reshape(tiles, -1, 2, 8, lanes.TILE_FILTERS)

    def _by_filter(
        self, rows: Integer[np.ndarray, "classes rows segments filters_per_group"]
    ) -> Integer[np.ndarray, "filters jobs segments"]:
        """Brings what is known by class and row into the order of filters and chunks."""
        by_group = rows.reshape(self._classes, self._streams.groups, self._per_group, *rows.shape[2:])
        by_group = by_group.transpose(1, 4, 2, 0, 3)  # [groups, filters, rows of a group, classes, segments]
        by_group = by_group.reshape(self._streams.filters, -1, rows.shape[2])
        return np.ascontiguousarray(by_group[:, : self._streams.chunks])

    def _pack_windows(self, image: int, fields: _Fields) -> UInt8[np.ndarray, "bytes fields 9 masks"]:
        bits = nonzero(self._layer.activations[image])
        if not self._layer.is_conv:
            bits = bits.reshape(-1, bits.shape[-1])
        spatial = bits.shape[:-1]
        if self._used_phases > 1:
            bits = bits.reshape(*spatial, self._streams.groups, -1)
            missing = self._per_group * self._phases - bits.shape[-1]
            bits = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, missing)]).reshape(*spatial, self._rows, -1)
            bits = np.moveaxis(bits, -1, 0)[: self._used_phases]
        else:
            bits = bits[None]
        bytes_ = np.moveaxis(np.packbits(bits, axis=-1, bitorder="little"), -1, 1)
        bytes_ = pad_spatial(self._layer, bytes_)  # [phases, bytes, *padded]
        windows = np.zeros((self._classes, self._row_bytes, fields.count, lanes.SLOTS, fields.length), np.uint8)
        for class_, slot, phase, index in self._slots():
            window = bytes_[phase][:, *tap_slices(self._layer, index)].reshape(self._row_bytes, -1)
            fields.spread(window, windows[class_, :, :, slot])
        return windows.reshape(-1, *windows.shape[2:])

    def count(self, image: int, segments: list[tuple[int, int]]) -> JobCycles:
        """Counts the cycles of every job for one image, its stream cut into the given non-empty segments."""
        fields = _Fields(segments, self._arch.lookahead)
        windows = self._pack_windows(image, fields)
        row_bytes = len(windows)
        windows = windows.reshape(-1, lanes.SLOTS, lanes.FIELD, self._arch.lookahead)
        units = len(windows)  # fields of each byte of rows
        unit_bytes = np.repeat(np.arange(row_bytes), fields.count)
        unit_keys = unit_bytes * len(segments) + np.tile(fields.segment, row_bytes)
        width, filter_tiles = lanes.TILE_FIELDS, len(self._kernels)
        cycles = np.zeros((row_bytes * len(segments), 8, filter_tiles, lanes.TILE_FILTERS), fields.dtype)
        window_sums = np.zeros((row_bytes, 8, lanes.SLOTS), np.int64)
        counted = working = bins = 0

        def fill(call: tuple[range, range]) -> tuple[np.ndarray, ...]:
            starts, filter_range = call
            first, last = starts[0], min(starts[-1] + width, units)
            filled = windows[first:last]
            if last - first < width * lanes.WINDOW_TILES:
                filled = np.zeros((width * lanes.WINDOW_TILES, *windows.shape[1:]), np.uint8)
                filled[: last - first] = windows[first:last]
            kernels = np.empty((lanes.TILES, width, *self._kernels.shape[2:]), np.uint8)
            chosen = np.zeros(lanes.TILES, np.int32)
            tile = 0
            for window, start in enumerate(starts):
                rows = unit_bytes[start : start + width]
                for filter_tile in filter_range:
                    np.take(self._kernels[filter_tile], rows, axis=0, out=kernels[tile, : len(rows)], mode="clip")
                    kernels[tile, len(rows) :] = 0
                    chosen[tile] = window
                    tile += 1
            filled = filled.reshape(lanes.WINDOW_TILES, width, *windows.shape[1:])
            return filled, kernels, chosen, np.array(tile, np.int32)

        def finish(call: tuple[range, range], outputs: tuple[np.ndarray, ...]) -> tuple:
            starts, filter_range = call
            tile_cycles, totals, sums = outputs
            parts = []
            for window, start in enumerate(starts):
                keys = unit_keys[start : start + width]
                rows = unit_bytes[start : start + width]
                first = window * len(filter_range)
                tiles = tile_cycles[first : first + len(filter_range), : len(keys)].swapaxes(0, 1)
                runs = np.flatnonzero(np.diff(keys, prepend=-1, append=-1))
                if len(runs) <= len(keys):  # some segment has several fields; 16 bits hold the cycles of all 32
                    pairs = itertools.pairwise(runs)
                    tiles = np.stack([tiles[run:end].sum(0, dtype=np.uint16) for run, end in pairs])
                row_sums = np.add.reduceat(
                    sums[window, : len(rows)], np.flatnonzero(np.diff(rows, prepend=-1)), axis=0, dtype=np.int64
                )
                parts.append((keys[0], tiles.swapaxes(1, 2), rows[0], row_sums))
            return filter_range, totals, parts

        calls = _calls(units, width, filter_tiles)
        kernel = compiled(
            lanes.count_positions, bitwise=True, selector=self._arch.selector, rotate=self._arch.intra_balance
        )
        for filter_range, (more_bins, empty), parts in run_tiles(kernel, calls, fill, finish):
            bins += int(more_bins)
            counted += len(parts) * len(filter_range)
            working -= int(empty)
            for key, summed, row, row_sums in parts:
                cycles[key : key + len(summed), :, filter_range.start : filter_range.stop] += summed
                if filter_range.start == 0:
                    window_sums[row : row + len(row_sums)] += row_sums
        working += counted * width * lanes.FIELD * 8 * lanes.TILE_FILTERS

        # [classes, bytes, segments, 8, filters] -> [classes, rows, segments, filters]
        cycles = cycles.reshape(self._classes, self._row_bytes, len(segments), 8, -1).swapaxes(2, 3)
        cycles = cycles.reshape(self._classes, -1, len(segments), cycles.shape[-1])
        cycles = self._by_filter(cycles[:, : self._rows, :, : self._filters])
        effectual = int((self._tap_sums * window_sums.reshape(self._tap_sums.shape)).sum())
        return _job_cycles(cycles, self.loads, fields, working, bins, effectual)


def _calls(units: int, width: int, filter_tiles: int) -> Iterator[tuple[range, range]]:
    """Yields, per call, the first units of its windows and its tiles of filters."""
    step = min(filter_tiles, lanes.TILES)
    windows = min(lanes.WINDOW_TILES, lanes.TILES // step)
    for start in range(0, units, width * windows):
        starts = range(start, min(start + width * windows, units), width)
        for first in range(0, filter_tiles, step):
            yield starts, range(first, min(first + step, filter_tiles))


class ChunkCounter:
    """Counts jobs that stream along chunks, each a position."""

    def __init__(self, layer: Layer, streams: Streams, arch: Phantom2D) -> None:
        self._layer, self._streams, self._arch = layer, streams, arch
        self._filters = streams.filters // streams.groups
        weights = nonzero(layer.weights)
        kernel = weights.shape[:-2]
        rows = weights.reshape(-1, streams.groups, self._filters)  # [taps * Cin/groups, groups, filters]
        packed = np.empty((len(rows), streams.groups, -(-self._filters // 8)), np.uint8)
        loads = np.zeros((streams.groups, self._filters), np.int64)
        for start in range(0, len(rows), _SLAB_ROWS):
            slab = rows[start : start + _SLAB_ROWS]
            packed[start : start + _SLAB_ROWS] = np.packbits(slab, axis=-1, bitorder="little")
            loads += np.add.reduce(slab.view(np.uint8), axis=0, dtype=np.uint8)
        packed = packed.reshape(*kernel, weights.shape[-2], *packed.shape[1:])
        # Into the order of the reduction axis: [groups, Rd, bytes of filters].
        axes = (len(kernel) + 1, len(kernel), *reversed(range(len(kernel))), len(kernel) + 2)
        self._kernels = packed.transpose(axes).reshape(streams.groups, layer.reduction, -1)
        self._tap_sums = np.bitwise_count(self._kernels).sum(-1, dtype=np.int64)
        self.nonzero_weights = int(self._tap_sums.sum())
        self.loads = loads.reshape(-1, 1)  # all jobs of a filter are the same kernel

    def count(self, image: int, segments: list[tuple[int, int]]) -> JobCycles:
        """Counts the cycles of every job for one image, its stream cut into the given non-empty segments."""
        streams, lookahead = self._streams, self._arch.lookahead
        fields = _Fields(segments, lookahead)
        positions, slots = streams.positions, lanes.SLOTS
        view = window_view(self._layer, nonzero(self._layer.activations[image]))
        windows = view.reshape(positions, streams.groups, -1).swapaxes(0, 1)  # [groups, N, Rd], few of them
        width = lanes.CHUNK_TILE_BYTES
        words = -(-fields.count // lanes.FIELDS)

        # A word of the windows holds a bit for each block of its four fields: [groups, words, N, L, 9].
        spread = np.zeros((streams.groups, positions, slots, words * lanes.FIELDS, fields.length), bool)
        by_chunk = np.zeros((streams.groups, positions, streams.chunks * slots), bool)
        by_chunk[:, :, : windows.shape[-1]] = windows
        by_chunk = by_chunk.reshape(streams.groups, positions, streams.chunks, slots).swapaxes(2, 3)
        fields.spread(by_chunk, spread[..., : fields.count, :])
        spread = spread.reshape(streams.groups, positions, slots, words, lanes.FIELDS * lanes.FIELD, lookahead)
        packed = np.packbits(spread.transpose(0, 3, 1, 5, 2, 4), axis=-1, bitorder="little")
        window_words = np.ascontiguousarray(packed).view("<u8")[..., 0]

        bytes_ = self._kernels.shape[-1]
        cycles = np.zeros((streams.groups, positions, len(segments), -(-bytes_ // width) * width, 8), np.int64)
        tiles = [
            (group, word, first)
            for group in range(streams.groups)
            for first in range(0, bytes_, width)
            for word in range(words)
        ]

        def fill(tile: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
            group, word, first = tile
            kernels = np.zeros((lanes.FIELDS, fields.length * slots, width), np.uint8)
            part = self._kernels[group][:, first : first + width]
            for index in range(word * lanes.FIELDS, min((word + 1) * lanes.FIELDS, fields.count)):
                start, stop = fields.bounds[index]
                rows = part[start * slots : stop * slots]
                kernels[index % lanes.FIELDS, : len(rows), : part.shape[1]] = rows
            stream = np.zeros((lanes.CHUNK_TILE_POSITIONS, lookahead, slots), np.uint64)
            stream[:positions] = window_words[group, word]
            kernels = kernels.reshape(lanes.FIELDS, lanes.FIELD, lookahead, slots, width)
            return kernels, stream, np.array(positions, np.int32)

        def finish(tile: tuple[int, int, int], outputs: tuple[np.ndarray, ...]) -> tuple:
            return (*tile, outputs[0][:positions].astype(np.int64), outputs[1])

        kernel = compiled(
            lanes.count_chunks, bitwise=True, selector=self._arch.selector, rotate=self._arch.intra_balance
        )
        bins, working = 0, len(tiles) * positions * width * 8 * lanes.FIELDS * lanes.FIELD
        for group, word, first, tile_cycles, (more_bins, empty) in run_tiles(kernel, tiles, fill, finish):
            bins += int(more_bins)
            working -= int(empty)
            for index in range(word * lanes.FIELDS, min((word + 1) * lanes.FIELDS, fields.count)):
                segment = fields.segment[index]
                cycles[group, :, segment, first : first + width] += tile_cycles[:, index % lanes.FIELDS]

        cycles = cycles.reshape(streams.groups, positions, len(segments), -1)[..., : self._filters]
        cycles = cycles.transpose(0, 3, 1, 2).reshape(streams.filters, positions, len(segments))
        effectual = int((self._tap_sums * windows.sum(1, dtype=np.int64)).sum())
        return _job_cycles(cycles, self.loads, fields, working, bins, effectual)
