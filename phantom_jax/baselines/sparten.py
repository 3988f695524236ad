"""SparTen: clusters of units that join a filter's mask with a broadcast activation vector (SPEC 9)."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Int64

from phantom_jax.baselines.design import Count, Design, grouped_weights, nearest_array, tap_windows
from phantom_jax.exact import cut_segments
from phantom_jax.layer import Layer
from phantom_jax.windows import kernel_index

_SLAB = 1 << 24  # windows and joins that are alive at a time, in elements
_EXACT_FLOAT32 = 1 << 24  # integers up to it are exact in float32


@dataclasses.dataclass(frozen=True)
class _Broadcast:
    """Channels that a cluster broadcasts, and the filters that its units join with them, in the order taken."""

    channels: slice
    weights: Bool[np.ndarray, "elements filters"]  # elements: kernel elements slowest


@dataclasses.dataclass(frozen=True)
class SparTen(Design):
    """SparTen (Gondimalla et al., MICRO 2019).

    The paper states: clusters of compute units, each with a multiplier; masks and values in chunks; a unit joins the
    chunks of its filter with those of the activations, which its cluster broadcasts; greedy balance by the software
    (GB-S), which sorts filters by density and puts a dense and a sparse one on the same unit. As means over its
    networks it states speed-ups of 4.7 over dense, 1.8 over one-sided sparsity, 3 over SCNN.

    This model defines, and SPEC 9 fixes: a join takes a cycle per pair of non-zeros, and one cycle at least. Clusters
    share out the output positions, units of a cluster wait for each other at each position. Beyond SPEC 9:

    - Vectors have channels fastest, kernel elements in the order of SPEC 3; chunks are cut from the whole vector.
    - Cluster c has positions floor(c * N / clusters) up to floor((c + 1) * N / clusters), in row-major order. It takes
      all filters, as many at a time as its units hold. Clusters wait for each other at the end of the layer.
    - With greedy balance, a group's filters are sorted by their non-zero weights, descending and stable, and taken 2 *
      units at a time; unit u holds filters u and 2 * units - 1 - u of these. Of fewer than 2 * units, the sparsest
      lack, so no more than `units` filters are one to a unit. Without balance, `units` filters are taken at a time.
    - Groups: as many whole ones are taken at a time as the units hold, and all their channels are broadcast; groups of
      more filters one by one. A depthwise layer thus broadcasts as many channels as it has filters at a time.
    - A layer of few positions leaves clusters idle. Fully connected layers, which keep one cluster busy, are not
      supported by the published design.

    The stack: `effectual`; `bubble`, chunks without a match; `inter_unit`, units that wait for the slowest of their
    cluster or have no filter; `inter_cluster`, clusters that wait for the slowest or have no position.

    Attributes:
        clusters: Clusters.
        units: Units per cluster, a multiplier each.
        chunk: Elements of a chunk.
        greedy_balance: Whether units hold pairs of filters (GB-S).
        equal_multipliers: See `Design`.

    Raises:
        ValueError: A parameter is not valid.
    """

    clusters: int = 32
    units: int = 32
    chunk: int = 128
    greedy_balance: bool = True

    def __post_init__(self) -> None:
        """Validates every parameter."""
        super().__post_init__()
        for name in ("clusters", "units", "chunk"):
            self._check_integer(name)
        self._check_bool("greedy_balance")

    @classmethod
    def scaled(cls, multipliers: int = 252) -> "SparTen":
        """Returns the design with about `multipliers` multipliers; results are scaled to exactly that number.

        For 252: 14 clusters of 18 units, which are 252.
        """
        clusters, units = nearest_array((cls.clusters, cls.units), 1, multipliers)
        return cls(clusters=clusters, units=units, equal_multipliers=multipliers)

    @property
    def array_multipliers(self) -> int:
        """Multipliers of the array."""
        return self.clusters * self.units

    @property
    def _held(self) -> int:
        """Filters that a cluster takes at a time."""
        return self.units * (2 if self.greedy_balance else 1)

    def supports(self, layer: Layer) -> bool:
        """Whether the published design runs such a layer: convolutions only (by the abstract of arXiv:2111.05002)."""
        return layer.is_conv

    def counter(self, layer: Layer) -> Callable[[int], Count]:
        """Returns what counts an image of a layer."""
        broadcasts = list(self._broadcasts(layer))
        starts = [start for start, _ in cut_segments(layer.positions, self.clusters)]

        def count(image: int) -> Count:
            slowest, joined = self._run(layer, image, broadcasts)
            per_cluster = np.add.reduceat(slowest, starts)
            cycles, worked = int(per_cluster.max()), int(slowest.sum())
            return Count(
                cycles,
                {
                    "bubble": joined,
                    "inter_unit": worked * self.units - joined,
                    "inter_cluster": (cycles * self.clusters - worked) * self.units,
                },
                effectual_in="bubble",
            )

        return count

    def _broadcasts(self, layer: Layer) -> Iterator[_Broadcast]:
        weights = grouped_weights(layer)
        kernel = weights.shape[:-3]
        taps = np.stack([weights[kernel_index(kernel, tap)] for tap in range(math.prod(kernel))])
        channels, groups, filters = taps.shape[1:]
        at_once = min(groups, max(1, self._held // filters))
        for first in range(0, groups, at_once):
            of = taps[:, :, first : first + at_once]
            count = of.shape[2]
            matrix = np.zeros((len(taps), count, channels, count, filters), bool)
            matrix[:, range(count), :, range(count)] = of.transpose(2, 0, 1, 3)
            matrix = matrix.reshape(-1, count * filters)
            if self.greedy_balance:
                matrix = matrix[:, np.argsort(-np.count_nonzero(matrix, axis=0), kind="stable")]
            yield _Broadcast(slice(first * channels, (first + count) * channels), matrix)

    def _run(
        self, layer: Layer, image: int, broadcasts: list[_Broadcast]
    ) -> tuple[Int64[np.ndarray, " positions"], int]:
        """Returns what a cluster works at each position, and the cycles of all units' joins."""
        windows = np.stack([window for _, window in tap_windows(layer, image)], axis=1)  # [N, taps, Cin]
        slowest, joined = np.zeros(layer.positions, np.int64), 0
        for broadcast in broadcasts:
            step = max(1, _SLAB // max(broadcast.weights.shape))
            for start in range(0, layer.positions, step):
                slab = windows[start : start + step, :, broadcast.channels]
                joins = self._joins(slab.reshape(len(slab), -1), broadcast.weights)
                joined += int(joins.sum())
                slowest[start : start + step] += self._slowest(joins)
        return slowest, joined

    def _joins(
        self, vectors: Bool[np.ndarray, "positions elements"], weights: Bool[np.ndarray, "elements filters"]
    ) -> Int64[np.ndarray, "positions filters"]:
        """Returns the cycles that each filter's joins take at each position, summed as integers that floats hold."""
        exact = np.float32 if len(weights) <= _EXACT_FLOAT32 else np.float64
        cycles = np.zeros((len(vectors), weights.shape[1]), exact)
        for start in range(0, len(weights), self.chunk):
            end = start + self.chunk
            matches = vectors[:, start:end].astype(exact) @ weights[start:end].astype(exact)
            cycles += np.maximum(matches, 1, out=matches)
        return cycles.astype(np.int64)

    def _slowest(self, joins: Int64[np.ndarray, "positions filters"]) -> Int64[np.ndarray, " positions"]:
        """Returns what the slowest unit of a cluster works at each position, over all filters of a broadcast."""
        slowest = np.zeros(len(joins), np.int64)
        for first in range(0, joins.shape[1], self._held):
            units = joins[:, first : first + self.units].copy()
            second = joins[:, first + self.units : first + self._held]
            units[:, self.units - second.shape[1] :] += second[:, ::-1]
            slowest += units.max(1)
        return slowest
