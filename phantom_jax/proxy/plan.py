"""What the shapes of a layer and the accelerator fix: the exact model's mapping, and how cycles are expected."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Int

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import Streams, choose_row_axis, cut_segments, streams
from phantom_jax.layer import Layer
from phantom_jax.proxy.jobs.chain import has_chain

MOST_BITS = 12  # of a kernel whose patterns are all tabulated
_FEW_BLOCKS = 8  # whose distributions of cycles are added up; the sum of more is nearly Gaussian

Way = Literal[
    "single",  # a table of patterns gives the whole distribution of a column's only job
    "blocks",  # a Markov chain gives the distributions of few independent blocks, which add up
    "patterns",  # tables of patterns give moments of jobs
    "chain",  # a Markov chain gives moments of filters
    "samples",  # sampled kernels give moments
]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a layer is cut and mapped, and the way its cycles are expected."""

    weights_shape: tuple[int, ...]
    streams: Streams
    row_axis: str
    segments: tuple[tuple[int, int], ...]
    has_probable_activations: bool
    arch: Phantom2D

    @classmethod
    def of(cls, layer: Layer, has_probable_activations: bool, arch: Phantom2D) -> "Plan":
        """Plans a layer as `simulate` maps it."""
        found = streams(layer, arch)
        row_axis, _ = choose_row_axis(found, arch)
        segments = tuple(cut_segments(found.length, arch.rows if row_axis == "segments" else 1))
        return cls(tuple(layer.weights.shape), found, row_axis, segments, has_probable_activations, arch)

    @property
    def reduction(self) -> int:
        """Weight bits of a filter."""
        return int(np.prod(self.weights_shape[:-1]))

    @property
    def occupied_slots(self) -> int:
        """Slots that a chunk occupies at most."""
        return min(self.arch.slots, self.reduction)

    @property
    def per_round(self) -> int:
        """Filters of a round."""
        return self.arch.cores if self.row_axis == "filters" else self.arch.cols

    @property
    def rounds(self) -> int:
        """Rounds of the layer."""
        return -(-self.streams.filters // self.per_round)

    @property
    def longest_segment(self) -> int:
        """Masks of the longest segment of a stream."""
        return max(stop - start for start, stop in self.segments)

    @property
    def places_jobs(self) -> bool:
        """Whether rows share out jobs of different kernel bits."""
        return self.row_axis == "jobs" and self.streams.axis == "positions" and self.streams.jobs > 1

    @property
    def cells(self) -> Int[np.ndarray, " jobs"]:
        """The row of each job of a stream along chunks: as their loads are equal, jobs take the rows in turn."""
        return np.arange(self.streams.jobs) % self.arch.rows * (self.row_axis == "jobs")

    @property
    def is_balanced(self) -> bool:
        """Whether level-2 balance changes anything: several filters of several rounds, or jobs of several rows."""
        orders = self.rounds > 1 and self.per_round > 1
        return self.arch.inter_balance and (orders or (self.places_jobs and self.arch.rows > 1))

    @property
    def way(self) -> Way:
        """How cycles are expected."""
        if self.streams.axis == "positions":
            if self.occupied_slots > MOST_BITS:
                return "samples"
            return "single" if self.streams.jobs == 1 and not self.has_probable_activations else "patterns"
        if not has_chain(self.arch.selector, self.arch.threads, min(self.arch.lookahead, self.longest_segment)):
            return "samples"
        blocks = -(-self.longest_segment // self.arch.lookahead)
        has_few_blocks = self.streams.positions == 1 and blocks <= _FEW_BLOCKS
        return "blocks" if has_few_blocks and not self.is_balanced else "chain"
