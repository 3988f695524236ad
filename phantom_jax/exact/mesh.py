"""The mesh: how cores share out a layer's jobs, and what a round lasts (SPEC 5)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from phantom_jax.arch import Phantom2D
from phantom_jax.exact.lowering import Streams
from phantom_jax.promotion import promotion

ROW_AXES = ("jobs", "filters", "segments")
_PLACEMENT_JOBS = 128  # jobs per compiled call of level-2 placement, and rounds per call at most
_PLACEMENT_ROUNDS = 128
_PLACEMENT_SIDE = 64  # a mesh with a longer side is cut down to the rows and columns that can be in use


@dataclasses.dataclass(frozen=True)
class Mapping:
    """What the rows of the mesh share out, and the consequences that do not depend on the activations."""

    row_axis: str
    segments: list[tuple[int, int]]  # (start, stop) within a stream, empty ones left out
    dense_cycles: int
    order: Int[np.ndarray, " filters"]  # filters in the order in which rounds take them
    job_rows: Int[np.ndarray, "rounds jobs"] | None  # the row of each job, for `row_axis == "jobs"`


@dataclasses.dataclass(frozen=True)
class MeshCycles:
    """What a layer lasts on the mesh, for one image; waits are in core cycles."""

    cycles: int
    waiting: int  # cores that worked, for the slowest of their round
    idle: int  # cores without work in a round


def map_layer(streams: Streams, loads: Int[np.ndarray, "filters jobs_or_one"], arch: Phantom2D) -> Mapping:
    """Chooses what the rows share out, orders the filters and places the jobs.

    Args:
        streams: How the layer is cut into jobs.
        loads: Ones among the kernel bits of each job, or of all jobs of a filter alike.
        arch: The accelerator.
    """
    row_axis, dense_cycles = choose_row_axis(streams, arch)
    order = _filter_order(loads, arch)
    return Mapping(
        row_axis=row_axis,
        segments=cut_segments(streams.length, arch.rows if row_axis == "segments" else 1),
        dense_cycles=dense_cycles,
        order=order,
        job_rows=place_jobs(np.broadcast_to(loads, (streams.filters, streams.jobs))[order], arch)
        if row_axis == "jobs"
        else None,
    )


def choose_row_axis(streams: Streams, arch: Phantom2D) -> tuple[str, int]:
    """Returns the row axis with the fewest blocks on the critical path, and the dense cycles that it leads to."""
    longest = -(-streams.length // arch.rows)  # of the segments
    blocks, segment_blocks = -(-streams.length // arch.lookahead), -(-longest // arch.lookahead)
    steps = {  # jobs one after the other on the busiest core
        "jobs": _rounds("jobs", streams, arch) * -(-streams.jobs // arch.rows),
        "filters": _rounds("filters", streams, arch) * streams.jobs,
        "segments": _rounds("segments", streams, arch) * streams.jobs,
    }
    critical = {axis: steps[axis] * (segment_blocks if axis == "segments" else blocks) for axis in ROW_AXES}
    row_axis = min(ROW_AXES, key=lambda axis: critical[axis])  # of equals, the first
    return row_axis, steps[row_axis] * (longest if row_axis == "segments" else streams.length)


def cut_segments(length: int, rows: int) -> list[tuple[int, int]]:
    """Cuts a stream into one segment per row; where rows outnumber masks, the empty ones are left out."""
    rows = min(rows, length)
    return [(row * length // rows, (row + 1) * length // rows) for row in range(rows)]


def run_rounds(job_cycles: Int[np.ndarray, "filters jobs segments"], mapping: Mapping, arch: Phantom2D) -> MeshCycles:
    """Runs a layer's jobs in rounds; a round lasts as long as its slowest core."""
    cores = _run_cores(job_cycles, mapping, arch)
    starts = np.arange(0, len(cores), _filters_per_round(mapping.row_axis, arch))
    slowest = np.maximum.reduceat(cores.max(1), starts)
    busy = int(cores.sum())
    # Cores at work, weighted by what their round lasts; all others of the mesh are idle.
    present = int(np.add.reduceat(np.count_nonzero(cores, axis=1), starts) @ slowest)
    cycles = int(slowest.sum())
    return MeshCycles(cycles=cycles, waiting=present - busy, idle=cycles * arch.cores - present)


def map_cores(
    job_cycles: Int[np.ndarray, "filters jobs segments"], mapping: Mapping, arch: Phantom2D
) -> Int[np.ndarray, "rounds rows cols"]:
    """Returns the cycles that each core of the mesh works in each round."""
    cores = _run_cores(job_cycles, mapping, arch)
    per_round = _filters_per_round(mapping.row_axis, arch)
    cores = np.pad(cores, ((0, -len(cores) % per_round), (0, 0)))
    if mapping.row_axis == "filters":
        return cores.reshape(-1, arch.rows, arch.cols)
    rows = np.arange(cores.shape[1])
    if (
        mapping.row_axis == "segments" and cores.shape[1] < arch.rows
    ):  # masks fewer than rows, on the rows that have one
        rows = -(-(rows + 1) * arch.rows // cores.shape[1]) - 1
    on_mesh = np.zeros((len(cores) // arch.cols, arch.rows, arch.cols), np.int64)
    on_mesh[:, rows] = cores.reshape(-1, arch.cols, cores.shape[1]).swapaxes(1, 2)
    return on_mesh


def _run_cores(
    job_cycles: Int[np.ndarray, "filters jobs segments"], mapping: Mapping, arch: Phantom2D
) -> Int[np.ndarray, "filters cores"]:
    """Returns what each core that runs a filter works for it, with filters in the order of rounds."""
    if mapping.job_rows is None:
        return job_cycles[mapping.order].sum(1, dtype=np.int64)  # one core, or one for each segment
    # Brings the jobs of a row together, so that each core's are one run in memory.
    filters, jobs = job_cycles.shape[:2]
    visits = np.argsort(_narrow(mapping.job_rows), axis=1, kind="stable")
    rows = int(mapping.job_rows.max()) + 1
    cores_of_jobs = mapping.job_rows + rows * np.arange(len(mapping.job_rows))[:, None]
    counts = np.bincount(cores_of_jobs.reshape(-1), minlength=rows * len(mapping.job_rows)).reshape(-1, rows)
    rounds = np.arange(filters) // arch.cols
    runs = job_cycles.reshape(-1)[mapping.order[:, None] * jobs + visits[rounds]].reshape(-1)
    starts = (np.arange(filters) * jobs)[:, None] + (np.cumsum(counts, axis=1) - counts)[rounds]
    cores = np.add.reduceat(runs, np.minimum(starts, len(runs) - 1).reshape(-1), dtype=np.int64).reshape(filters, -1)
    return np.where(counts[rounds] > 0, cores, 0)


def _narrow(numbers: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Returns non-negative integers in a type of 16 bits if they fit, which sorts and moves faster."""
    return numbers.astype(np.int16) if numbers.max() < 1 << 15 else numbers


def _filters_per_round(row_axis: str, arch: Phantom2D) -> int:
    return arch.cores if row_axis == "filters" else arch.cols


def _rounds(row_axis: str, streams: Streams, arch: Phantom2D) -> int:
    return -(-streams.filters // _filters_per_round(row_axis, arch))


def _filter_order(loads: Int[np.ndarray, "filters jobs_or_one"], arch: Phantom2D) -> Int[np.ndarray, " filters"]:
    """Level-2 balance: filters by their non-zero weights, descending, stable."""
    return np.argsort(-loads.sum(1), kind="stable") if arch.inter_balance else np.arange(len(loads))


def place_jobs(loads: Int[np.ndarray, "filters jobs"], arch: Phantom2D) -> Int[np.ndarray, "rounds jobs"]:
    """Places the jobs of each round on rows of the mesh; `loads` has its filters in order of rounds."""
    filters, jobs = loads.shape
    rounds = -(-filters // arch.cols)
    if not arch.inter_balance:
        return np.tile(np.arange(jobs) % arch.rows, (rounds, 1))
    # No more than J rows can get a job, the first ones, and no more than K columns hold a filter.
    rows = min(arch.rows, max(_PLACEMENT_SIDE, 1 << (jobs - 1).bit_length()))
    cols = min(arch.cols, max(_PLACEMENT_SIDE, 1 << (filters - 1).bit_length()))
    loads = _narrow(loads)
    if filters < rounds * cols:
        loads = np.pad(loads, ((0, rounds * cols - filters), (0, 0)))
    loads = loads.reshape(rounds, cols, jobs)
    summed = loads.sum(1, dtype=np.int64)
    visits = np.argsort(_narrow(summed.max() - summed), axis=1, kind="stable")  # descending
    first = np.arange(0, loads.size, jobs).reshape(rounds, cols, 1)  # of each filter's loads
    visited = np.take(loads, first + visits[:, None])
    placed = np.empty((rounds, jobs), np.int64)
    step = max(1, min(_PLACEMENT_ROUNDS, (1 << 22) // (rows * cols)))
    dtype = np.int32 if summed.sum(1).max() < np.iinfo(np.int32).max else np.int64
    with jax.enable_x64(dtype == np.int64), promotion():
        for start in range(0, rounds, step):
            row_loads = np.zeros((rows, cols, step), dtype)
            for job in range(0, jobs, _PLACEMENT_JOBS):
                tile = visited[start : start + step, :, job : job + _PLACEMENT_JOBS]
                padded = np.zeros((step, cols, _PLACEMENT_JOBS), dtype)
                padded[: len(tile), :, : tile.shape[2]] = tile
                row_loads, chosen = _place_tile(row_loads, padded)
                chosen = np.asarray(chosen).T[: len(tile), : tile.shape[2]]
                placed[start : start + step, job : job + _PLACEMENT_JOBS] = chosen
    job_rows = np.empty((rounds, jobs), np.int64)
    np.put_along_axis(job_rows, visits, placed, axis=1)
    return job_rows


@jax.jit
def _place_tile(
    row_loads: Int[Array, "rows cols rounds"], loads: Int[Array, "rounds cols jobs"]
) -> tuple[Int[Array, "rows cols rounds"], Int[Array, "jobs rounds"]]:
    """Places a tile of jobs in the order given, in many rounds at once; jobs without load change nothing."""
    return jax.lax.scan(place_next, row_loads, loads.transpose(2, 1, 0))


def place_next(row_loads: Array, load: Array) -> tuple[Array, Array]:
    """Places the next job of each round, given the loads of rows `[rows, cols, rounds]` and its own `[cols, rounds]`.

    It goes to the row where the round's highest load stays lowest; then to the emptiest row, then to the first.

    Returns:
        The loads of rows with this job, and its row in each round.
    """
    highest = (row_loads + load).max(1)
    summed = row_loads.sum(1, dtype=row_loads.dtype)
    most = jnp.inf if jnp.issubdtype(summed.dtype, jnp.floating) else jnp.iinfo(summed.dtype).max
    row = jnp.argmin(jnp.where(highest == highest.min(0), summed, most), axis=0)
    return row_loads + jnp.where(jnp.arange(len(row_loads))[:, None, None] == row, load, 0), row
