"""The model in scalar Python, written from the specification, section by section.

Nothing here is fast and nothing is shared with the package. Each stage is a function of its own, so that a test can
compare stage by stage: which zero or one a slot holds, which cycle an entry issues in, what a job takes, where a job
is placed, what a round lasts.
"""

import dataclasses
import itertools
import math
from typing import Any


@dataclasses.dataclass
class Arch:
    """Section 1."""

    rows: int = 7
    cols: int = 4
    pes: int = 3
    threads: int = 3
    lookahead: int = 27
    selector: str = "out_of_order"
    intra_balance: bool = True
    inter_balance: bool = True


@dataclasses.dataclass
class Problem:
    """Section 2, one image: masks as any array that can be indexed by a tuple, geometry per spatial axis."""

    weights: Any  # [*kernel, Cin/groups, K] or [Cin, K]
    activations: Any  # [*spatial, Cin] or [Q, Cin]
    strides: tuple = ()
    padding: Any = ()  # "SAME", "VALID" or (low, high) pairs
    input_dilation: tuple = ()
    kernel_dilation: tuple = ()
    groups: int = 1


def output_shape_and_pads(problem):
    """Section 2: output positions and low pads per axis, with the meaning of conv_general_dilated."""
    shape, lows = [], []
    for axis in range(len(problem.strides)):
        size = (problem.activations.shape[axis] - 1) * problem.input_dilation[axis] + 1
        extent = (problem.weights.shape[axis] - 1) * problem.kernel_dilation[axis] + 1
        stride = problem.strides[axis]
        if problem.padding == "VALID":
            low, high = 0, 0
        elif problem.padding == "SAME":
            total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
            low, high = total // 2, total - total // 2
        else:
            low, high = problem.padding[axis]
        shape.append((low + size + high - extent) // stride + 1)
        lows.append(low)
    return shape, lows


def kernel_matrix(problem):
    """Section 3: per filter, its reduction axis; channel slowest, then the kernel axes from last to first."""
    *kernel, channels, filters = problem.weights.shape
    matrix = []
    for k in range(filters):
        line = []
        for c in range(channels):
            for reversed_tap in itertools.product(*(range(size) for size in reversed(kernel))):
                line.append(int(problem.weights[(*reversed(reversed_tap), c, k)] != 0))
        matrix.append(line)
    return matrix


def window_matrix(problem, group):
    """Section 3: per output position in row-major order, its reduction axis for one group."""
    *kernel, channels, _ = problem.weights.shape
    if not problem.strides:
        return [[int(value != 0) for value in line] for line in problem.activations]
    shape, lows = output_shape_and_pads(problem)
    spatial = problem.activations.shape[:-1]
    matrix = []
    for position in itertools.product(*(range(size) for size in shape)):
        line = []
        for c in range(channels):
            for reversed_tap in itertools.product(*(range(size) for size in reversed(kernel))):
                index, inside = [], True
                for axis, tap in enumerate(reversed(reversed_tap)):
                    place = position[axis] * problem.strides[axis] + tap * problem.kernel_dilation[axis] - lows[axis]
                    inside &= place % problem.input_dilation[axis] == 0
                    place //= problem.input_dilation[axis]
                    inside &= 0 <= place < spatial[axis]
                    index.append(place)
                line.append(int(problem.activations[(*index, group * channels + c)] != 0) if inside else 0)
        matrix.append(line)
    return matrix


def chunk(line, arch):
    """Section 3: a line of the reduction axis as chunks of P columns of T bits."""
    slots = arch.pes * arch.threads
    padded = line + [0] * (-len(line) % slots)
    return [
        [[padded[g + p * arch.threads + t] for t in range(arch.threads)] for p in range(arch.pes)]
        for g in range(0, len(padded), slots)
    ]


def counts_of(kernel_chunk, window_chunk):
    """Section 3: the entries' counts of one lookahead mask, one per column."""
    return [
        sum(w & a for w, a in zip(kernel_column, window_column, strict=True))
        for kernel_column, window_column in zip(kernel_chunk, window_chunk, strict=True)
    ]


def issue_cycles(counts, arch):
    """Section 4.2: the cycle, from 1, in which each entry of one PE issues; 0 for entries of count 0."""
    issued = [0] * len(counts)
    cycle = 0
    while any(count and not issued[index] for index, count in enumerate(counts)):
        cycle += 1
        free = arch.threads
        for index, count in enumerate(counts):
            if issued[index] or count == 0:
                continue
            if count <= free:
                issued[index] = cycle
                free -= count
            elif arch.selector == "in_order":
                break
    return issued


def run_block(masks, arch):
    """Section 4: one block, given the P counts of each of its masks. Returns (cycles, bins per PE)."""
    bins = []
    for p in range(arch.pes):
        columns = [(p + index) % arch.pes if arch.intra_balance else p for index in range(len(masks))]
        bins.append(
            max(issue_cycles([mask[column] for mask, column in zip(masks, columns, strict=True)], arch), default=0)
        )
    return max(1, *bins), bins


def run_stream(masks, arch):
    """Section 4: one stream. Returns cycles, and the thread slots lost in it by component of section 6."""
    total = 0
    lost = {"fragmentation": 0, "intra_core": 0, "bubble": 0}
    for start in range(0, len(masks), arch.lookahead):
        block = masks[start : start + arch.lookahead]
        cycles, bins = run_block(block, arch)
        total += cycles
        if not any(bins):
            lost["bubble"] += arch.pes * arch.threads
            continue
        lost["fragmentation"] += sum(bins) * arch.threads - sum(map(sum, block))
        lost["intra_core"] += sum((cycles - b) * arch.threads for b in bins)
    return total, lost


def segment_bounds(length, arch):
    """Section 5: segment r is masks floor(r*M/R) up to floor((r+1)*M/R)."""
    return [(r * length // arch.rows, (r + 1) * length // arch.rows) for r in range(arch.rows)]


def choose_row_axis(filters, jobs, length, arch):
    """Section 5: the row axis with the fewest blocks on the critical path. Returns it and the dense cycles of all."""
    up = lambda a, b: -(-a // b)  # noqa: E731
    lengths = [stop - start for start, stop in segment_bounds(length, arch)]
    critical = {
        "jobs": up(filters, arch.cols) * up(jobs, arch.rows) * up(length, arch.lookahead),
        "filters": up(filters, arch.rows * arch.cols) * jobs * up(length, arch.lookahead),
        "segments": up(filters, arch.cols) * jobs * max(up(n, arch.lookahead) for n in lengths),
    }
    dense = {
        "jobs": up(filters, arch.cols) * up(jobs, arch.rows) * length,
        "filters": up(filters, arch.rows * arch.cols) * jobs * length,
        "segments": up(filters, arch.cols) * jobs * max(lengths),
    }
    fewest = min(critical.values())
    return next(axis for axis in ("jobs", "filters", "segments") if critical[axis] == fewest), dense, critical


def order_filters(kernels, arch):
    """Section 5: filters by non-zero weights, descending and stable, or as they come."""
    order = list(range(len(kernels)))
    if arch.inter_balance:
        order.sort(key=lambda k: -sum(kernels[k]))
    return order


def place_jobs(loads, arch):
    """Section 5: the row of each job of one round; loads[filter of the round][job]."""
    jobs = len(loads[0])
    if not arch.inter_balance:
        return [j % arch.rows for j in range(jobs)]
    placed = [-1] * jobs
    rows = [[0] * len(loads) for _ in range(arch.rows)]  # load per row and filter
    for j in sorted(range(jobs), key=lambda j: (-sum(load[j] for load in loads), j)):
        key = lambda r: (max(rows[r][c] + load[j] for c, load in enumerate(loads)), sum(rows[r]), r)  # noqa: B023, E731
        row = min(range(arch.rows), key=key)
        placed[j] = row
        for c, load in enumerate(loads):
            rows[row][c] += load[j]
    return placed


def simulate(problem, arch):
    """Sections 3 to 6 for one layer and image: a dictionary of integers, strings and the stack."""
    kernels = kernel_matrix(problem)
    windows = [window_matrix(problem, group) for group in range(problem.groups)]
    filters, positions, reduction = len(kernels), len(windows[0]), len(kernels[0])
    slots = arch.pes * arch.threads
    chunks = -(-reduction // slots)
    along_positions = positions >= min(arch.lookahead, chunks)
    jobs, length = (chunks, positions) if along_positions else (positions, chunks)
    row_axis, dense, critical = choose_row_axis(filters, jobs, length, arch)

    kernel_chunks = [chunk(line, arch) for line in kernels]
    window_chunks = [[chunk(line, arch) for line in group] for group in windows]

    def load(k, j):
        return sum(map(sum, kernel_chunks[k][j])) if along_positions else sum(kernels[k])

    def stream(k, j):
        group = window_chunks[k // (filters // problem.groups)]
        if along_positions:
            return [counts_of(kernel_chunks[k][j], group[n][j]) for n in range(positions)]
        return [counts_of(kernel_chunks[k][g], group[j][g]) for g in range(chunks)]

    stack = dict.fromkeys(["effectual", "fragmentation", "intra_core", "bubble", "inter_core", "idle"], 0)

    def run_job(k, j, start=0, stop=length):
        if load(k, j) == 0:
            return 0
        masks = stream(k, j)[start:stop]
        stack["effectual"] += sum(map(sum, masks))
        cycles, lost = run_stream(masks, arch)
        for component, slots_lost in lost.items():
            stack[component] += slots_lost
        return cycles

    order = order_filters(kernels, arch)
    cycles = 0
    per_round = arch.rows * arch.cols if row_axis == "filters" else arch.cols
    for first in range(0, filters, per_round):
        chosen = order[first : first + per_round]
        cores = [0] * (arch.rows * arch.cols)
        if row_axis == "filters":
            for core, k in enumerate(chosen):
                cores[core] = sum(run_job(k, j) for j in range(jobs))
        elif row_axis == "jobs":
            placed = place_jobs([[load(k, j) for j in range(jobs)] for k in chosen], arch)
            for column, k in enumerate(chosen):
                for j in range(jobs):
                    cores[placed[j] * arch.cols + column] += run_job(k, j)
        else:
            for column, k in enumerate(chosen):
                for row, (start, stop) in enumerate(segment_bounds(length, arch)):
                    cores[row * arch.cols + column] = sum(run_job(k, j, start, stop) for j in range(jobs))
        last = max(cores)
        cycles += last
        for core in cores:
            stack["inter_core" if core else "idle"] += (last - core) * slots

    return {
        "cycles": cycles,
        "dense_cycles": dense[row_axis],
        "dense_macs": positions * reduction * filters,
        "effectual_macs": sum(
            w & a
            for k, line in enumerate(kernels)
            for window in windows[k // (filters // problem.groups)]
            for w, a in zip(line, window, strict=True)
        ),
        "row_axis": row_axis,
        "stream": "positions" if along_positions else "chunks",
        "stack": stack,
        "critical": critical,
    }
