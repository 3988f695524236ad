"""Eyeriss v2: PEs that walk their non-zero activations and, for each, the non-zero weights it meets (SPEC 9)."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Int64

from phantom_jax.baselines.design import Count, Design, all_ones, is_depthwise, nearest_array, tap_windows
from phantom_jax.checks import one_of
from phantom_jax.exact import cut_segments
from phantom_jax.layer import Layer, nonzero
from phantom_jax.windows import kernel_matrix

BARRIERS = ("pass", "layer")


@dataclasses.dataclass(frozen=True)
class _Mapping:
    """How the PEs share out a layer: each has a range of groups, of their filters, of positions, of their channels."""

    groups: list[tuple[int, int]]
    filters: list[tuple[int, int]]
    positions: list[tuple[int, int]]
    channels: list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class EyerissV2(Design):
    """Eyeriss v2 (Chen et al., JETCAS 2019, arXiv:1807.07928).

    The paper states: 16 clusters of 12 PEs, two MACs per cycle and PE; weights and activations compressed, a PE skips
    zeros of both, except in depthwise layers, whose compressed format leaves nothing to skip; room for 192 weights and
    for the partial sums of 32 filters per PE; a flexible network that lets layers of any shape be spread over the PEs
    along filters, positions, channels and groups. As a whole it states 1470.6 inferences/s of a sparse
    MobileNetV1 of half width at 128x128 and 200 MHz, about 136,000 cycles.

    SPEC 9 fixes what one PE takes: over its channels and kernel elements, the sum of non-zero activations (as often as
    its output positions meet them) times ceil(non-zero weights / `macs_per_pe`). In depthwise layers every activation
    and weight counts as non-zero. What padding and input dilation insert is not an activation. Beyond SPEC 9, this
    model defines that a layer is depthwise if its groups have one channel and there are several, and how layers are
    spread:

    - Each PE has a range of groups, a range of their filters, a range of output positions in row-major order and a
      range of their channels, with all kernel elements. Ranges of an axis are as equal as can be. No PE has two.
    - PEs work in passes: on one group, a block of `psums` filters, and as many pairs of channel and kernel element,
      in the order of SPEC 3, as `weights` has room for if none is zero, one at least. All PEs go through their groups,
      blocks and pairs in the same order, and wait for each other at the end of each pass, since they share what the
      network brings; with `barrier="layer"`, at the end of the layer only.
    - The ranges are those of fewest cycles for a layer without zeros and padding, of all that have no more PEs than
      there are. Of equals, the ones with the fewest PEs are taken, then the fewest ranges of filters, of channels, of
      positions. They do not depend on the masks.

    The stack: `effectual`; `ineffectual`, MACs of depthwise layers with a zero operand; `fragmentation`, MACs of a PE
    that the last weights of an activation leave empty; `inter_pe`, PEs that wait for the slowest; `idle`,
    PEs that the ranges leave out.

    Every layer counts as supported: convolutions of any stride, depthwise and fully connected layers are the paper's.

    Attributes:
        clusters: Clusters.
        pes_per_cluster: PEs of a cluster.
        macs_per_pe: MACs per cycle of a PE, for one activation.
        psums: Filters whose partial sums a PE holds.
        weights: Weights that a PE has room for.
        barrier: Where PEs wait for each other: at the end of each `"pass"`, or of the `"layer"`.
        equal_multipliers: See `Design`.

    Raises:
        ValueError: A parameter is not valid.
    """

    clusters: int = 16
    pes_per_cluster: int = 12
    macs_per_pe: int = 2
    psums: int = 32
    weights: int = 192
    barrier: str = "pass"

    def __post_init__(self) -> None:
        """Validates every parameter."""
        super().__post_init__()
        for name in ("clusters", "pes_per_cluster", "macs_per_pe", "psums", "weights"):
            self._check_integer(name)
        one_of("barrier", self.barrier, BARRIERS)

    @classmethod
    def scaled(cls, multipliers: int = 252) -> "EyerissV2":
        """Returns the design with about `multipliers` multipliers; results are scaled to exactly that number.

        For 252: 14 clusters of 9 PEs, which are 252.
        """
        clusters, pes = nearest_array((cls.clusters, cls.pes_per_cluster), cls.macs_per_pe, multipliers)
        return cls(clusters=clusters, pes_per_cluster=pes, equal_multipliers=multipliers)

    @property
    def pes(self) -> int:
        """PEs of all clusters."""
        return self.clusters * self.pes_per_cluster

    @property
    def array_multipliers(self) -> int:
        """Multipliers of the array."""
        return self.pes * self.macs_per_pe

    def supports(self, layer: Layer) -> bool:
        """Whether the published design runs such a layer: always."""
        return True

    def counter(self, layer: Layer) -> Callable[[int], Count]:
        """Returns what counts an image of a layer."""
        mapping, skips = self._map(layer), not is_depthwise(layer)
        walked = layer if skips else all_ones(layer)
        weights = kernel_matrix(nonzero(walked.weights), layer.feature_group_count)  # [groups, pairs, filters]
        walks = self._walks(weights, mapping)

        def count(image: int) -> Count:
            met = _met(walked, image if skips else 0, mapping)
            passes = self._passes(layer, met, mapping, walks)
            macs = int((met.sum(-1) * np.count_nonzero(weights, axis=-1)).sum())
            units = passes if self.barrier == "pass" else passes.sum(0, keepdims=True)
            cycles, worked = int(units.max(1).sum()), int(passes.sum())
            return Count(
                cycles,
                {
                    "ineffectual": macs,
                    "fragmentation": worked * self.macs_per_pe - macs,
                    "inter_pe": (cycles * passes.shape[1] - worked) * self.macs_per_pe,
                    "idle": cycles * (self.pes - passes.shape[1]) * self.macs_per_pe,
                },
                effectual_in="ineffectual",
            )

        return count

    def _map(self, layer: Layer) -> _Mapping:
        groups, channels = layer.feature_group_count, layer.weights.shape[-2]
        sizes = groups, layer.filters // groups, layer.positions, channels

        def cost(ranges: tuple[int, ...]) -> tuple[int, ...]:
            of_groups, filters, positions, of_channels = (
                -(-size // parts) for size, parts in zip(sizes, ranges, strict=True)
            )
            whole, rest = divmod(filters, self.psums)
            walk = whole * -(-self.psums // self.macs_per_pe) + -(-rest // self.macs_per_pe)
            return of_groups * walk * positions * of_channels, math.prod(ranges), ranges[1], ranges[3], ranges[2]

        best = min(_ranges(sizes, self.pes), key=cost)
        return _Mapping(*(cut_segments(size, parts) for size, parts in zip(sizes, best, strict=True)))

    def _walks(
        self, weights: Bool[np.ndarray, "groups pairs filters"], mapping: _Mapping
    ) -> Int64[np.ndarray, "groups pairs filter_ranges blocks"]:
        """Returns the cycles that one non-zero activation takes at each pair of channel and kernel element."""
        blocks = max(-(-(stop - start) // self.psums) for start, stop in mapping.filters)
        walks = np.zeros((*weights.shape[:2], len(mapping.filters), blocks), np.int64)
        for index, (start, stop) in enumerate(mapping.filters):
            firsts = range(0, stop - start, self.psums)
            met = np.add.reduceat(weights[..., start:stop], firsts, axis=-1, dtype=np.int64)
            walks[:, :, index, : len(firsts)] = -(-met // self.macs_per_pe)
        return walks

    def _passes(
        self,
        layer: Layer,
        met: Int64[np.ndarray, "groups pairs position_ranges"],
        mapping: _Mapping,
        walks: Int64[np.ndarray, "groups pairs filter_ranges blocks"],
    ) -> Int64[np.ndarray, "passes pes"]:
        """Returns the cycles of each PE that has ranges, in each pass."""
        taps = met.shape[1] // layer.weights.shape[-2]
        filters, blocks = walks.shape[2:]
        at_once = max(1, self.weights // min(self.psums, -(-layer.filters // len(walks) // filters)))
        pairs = [(start * taps, stop * taps) for start, stop in mapping.channels]
        rounds = -(-max(stop - start for start, stop in pairs) // at_once)
        groups = max(stop - start for start, stop in mapping.groups)
        ranges = len(mapping.groups), filters, len(mapping.positions), len(pairs)
        cycles = np.zeros((groups, blocks, rounds, *ranges), np.int64)
        for at, (first, last) in enumerate(mapping.groups):
            for group in range(first, last):
                for of, (start, stop) in enumerate(pairs):
                    for number, pair in enumerate(range(start, stop, at_once)):
                        part = slice(pair, min(pair + at_once, stop))
                        done = np.tensordot(walks[group, part], met[group, part], (0, 0))  # [ranges, blocks, positions]
                        cycles[group - first, :, number, at, :, :, of] = done.swapaxes(0, 1)
        return cycles.reshape(groups * blocks * rounds, -1)


def _ranges(sizes: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    """Yields how many ranges each axis can be cut into, with a product of `most` at most."""
    if not sizes:
        yield ()
        return
    for parts in range(1, min(sizes[0], most) + 1):
        for others in _ranges(sizes[1:], most // parts):
            yield parts, *others


def _met(layer: Layer, image: int, mapping: _Mapping) -> Int64[np.ndarray, "groups pairs position_ranges"]:
    """Returns the non-zero activations that each pair of channel and kernel element meets."""
    starts = [start for start, _ in mapping.positions]
    groups = layer.feature_group_count
    kernel = layer.weights.shape[:-2] if layer.is_conv else ()
    met = np.zeros((*kernel, len(starts), groups, layer.weights.shape[-2]), np.int64)
    for index, window in tap_windows(layer, image):
        met[index] = np.add.reduceat(window, starts, axis=0, dtype=np.int64).reshape(len(starts), groups, -1)
    axes = range(met.ndim)
    return met.transpose(*axes[-2:], *axes[-4::-1], axes[-3]).reshape(groups, -1, len(starts))
