"""What the shapes of a layer and the accelerator fix: the exact model's mapping, and how cycles are expected."""

import dataclasses

import numpy as np
from jaxtyping import Int

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import Streams, choose_row_axis, cut_segments, streams
from phantom_jax.layer import Layer
from phantom_jax.proxy.jobs.chain import has_chain

MOST_BITS = 12  # of a kernel whose patterns are all tabulated; of more, some are sampled
_FEW_BLOCKS = 8  # whose cycles' distributions are added up; the sum of more is nearly Gaussian


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a layer is cut, mapped and relaxed."""

    weights_shape: tuple[int, ...]
    cut: Streams
    row_axis: str
    segments: tuple[tuple[int, int], ...]
    method: str  # "patterns", "chain" or "samples"
    probable: bool  # whether activations are probabilities
    arch: Phantom2D

    @classmethod
    def of(cls, layer: Layer, probable: bool, arch: Phantom2D) -> "Plan":
        """Plans a layer as `simulate` maps it."""
        cut = streams(layer, arch)
        row_axis, _ = choose_row_axis(cut, arch)
        segments = tuple(cut_segments(cut.length, arch.rows if row_axis == "segments" else 1))
        longest = min(arch.lookahead, max(stop - start for start, stop in segments))
        if cut.axis == "positions":
            method = "patterns" if min(arch.slots, layer.reduction) <= MOST_BITS else "samples"
        else:
            method = "chain" if has_chain(arch.selector, arch.threads, longest) else "samples"
        return cls(tuple(layer.weights.shape), cut, row_axis, segments, method, probable, arch)

    @property
    def reduction(self) -> int:
        """Weight bits of a filter."""
        return int(np.prod(self.weights_shape[:-1]))

    @property
    def slots(self) -> int:
        """Slots of a chunk that any chunk occupies."""
        return min(self.arch.slots, self.reduction)

    @property
    def per_round(self) -> int:
        """Filters of a round."""
        return self.arch.cores if self.row_axis == "filters" else self.arch.cols

    @property
    def rounds(self) -> int:
        """Rounds of the layer."""
        return -(-self.cut.filters // self.per_round)

    @property
    def places_jobs(self) -> bool:
        """Whether rows share out jobs of different kernel bits."""
        return self.row_axis == "jobs" and self.cut.axis == "positions" and self.cut.jobs > 1

    @property
    def is_balanced(self) -> bool:
        """Whether level-2 balance changes anything: several filters of several rounds, or jobs of several rows."""
        orders = self.rounds > 1 and self.per_round > 1
        return self.arch.inter_balance and (orders or (self.places_jobs and self.arch.rows > 1))

    @property
    def has_single_jobs(self) -> bool:
        """Whether a column runs one chunk's job, whose cycles are a function of few bits: all there is to know."""
        return self.method == "patterns" and self.cut.jobs == 1 and not self.probable

    @property
    def adds_blocks(self) -> bool:
        """Whether the distributions of few independent blocks are added up, of filters in a fixed order."""
        blocks = max(-(-(stop - start) // self.arch.lookahead) for start, stop in self.segments)
        return self.method == "chain" and self.cut.positions == 1 and blocks <= _FEW_BLOCKS and not self.is_balanced

    @property
    def cells(self) -> Int[np.ndarray, " jobs"]:
        """The row of each job of a stream along chunks: as their loads are equal, jobs go round the rows."""
        return np.arange(self.cut.jobs) % self.arch.rows * (self.row_axis == "jobs")
