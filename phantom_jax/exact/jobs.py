"""Jobs: what a core runs without talking to others, what counts its cycles, and where the slots go (SPEC 3, 4, 6)."""

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import Int

from phantom_jax.arch import Phantom2D
from phantom_jax.exact.mesh import MeshCycles


@dataclasses.dataclass(frozen=True)
class JobCycles:
    """What the jobs of one layer and image take, with the jobs that are never dispatched at zero.

    Segments that hold no mask are left out; `segments` is 1 where streams are not cut into segments.
    """

    cycles: Int[np.ndarray, "filters jobs segments"]
    effectual: int  # pairs of a weight and an activation that are both non-zero
    bins: int  # cycles with work, summed over blocks and PEs
    worked: int  # cycles of blocks with work
    bubbles: int  # blocks without work


class JobCounter(Protocol):
    """What counts the cycles of a layer's jobs, image by image.

    Attributes:
        loads: Ones among the kernel bits, `[filters, jobs]`; `[filters, 1]` where streams run along chunks, since all
            jobs of a filter then have the same kernel.
        nonzero_weights: Non-zero weights of the layer.
    """

    loads: Int[np.ndarray, "filters jobs_or_one"]
    nonzero_weights: int

    def count(self, image: int, segments: list[tuple[int, int]]) -> JobCycles:
        """Counts the cycles of every job for one image, with its stream cut into the given non-empty segments."""
        ...


def cycle_stack(jobs: JobCycles, mesh: MeshCycles, arch: Phantom2D) -> dict[str, int]:
    """Returns the thread slots of each component of the cycle stack; they sum to `mesh.cycles * arch.multipliers`."""
    return {
        "effectual": jobs.effectual,
        "fragmentation": jobs.bins * arch.threads - jobs.effectual,
        "intra_core": (jobs.worked * arch.pes - jobs.bins) * arch.threads,
        "bubble": jobs.bubbles * arch.slots,
        "inter_core": mesh.waiting * arch.slots,
        "idle": mesh.idle * arch.slots,
    }
