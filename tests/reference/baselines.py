"""The baselines in scalar Python, written from their rules (SPEC 9 and the docstrings), for one image of a layer.

Each function returns a dictionary: `cycles`, and the slots of its stack without `effectual`. Like `scalar`, nothing
here is fast and nothing is shared with the package.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from tests.reference import scalar


def spread(start, stop, parts):
    """Cuts a range into ranges as equal as can be, of which floors are the edges; empty ones are left out."""
    size = stop - start
    edges = [start + part * size // parts for part in range(parts + 1)]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def effectual(problem):
    """MACs of two non-zero operands."""
    kernels = scalar.kernel_matrix(problem)
    per_group = len(kernels) // problem.groups
    windows = [scalar.window_matrix(problem, group) for group in range(problem.groups)]
    return sum(
        w & a
        for k, kernel in enumerate(kernels)
        for window in windows[k // per_group]
        for w, a in zip(kernel, window, strict=True)
    )


# SCNN


def padded_plane(problem):
    """The input plane with all inserted zeros, as a set of non-zero (channel, x, y), and its size on two axes."""
    spatial = problem.activations.shape[:-1]
    shape, lows = scalar.output_shape_and_pads(problem)
    size = []
    for axis in range(len(spatial)):
        extent = (problem.weights.shape[axis] - 1) * problem.kernel_dilation[axis] + 1
        stretched = (spatial[axis] - 1) * problem.input_dilation[axis] + 1
        if problem.padding == "VALID":
            high = 0
        elif problem.padding == "SAME":
            high = max((shape[axis] - 1) * problem.strides[axis] + extent - stretched, 0) - lows[axis]
        else:
            high = problem.padding[axis][1]
        size.append(lows[axis] + stretched + high)
    ones = set()
    for index in itertools.product(*(range(n) for n in problem.activations.shape)):
        if problem.activations[index] != 0:
            *place, channel = index
            at = [low + p * d for low, p, d in zip(lows, place, problem.input_dilation, strict=True)]
            ones.add((channel, *[*at, 0][:2]))
    return ones, [*size, 1][:2], [*shape, 1][:2]


def bank_of(k, w, h, banks):
    return ((((k & 4) << 2) ^ ((w & 2) << 3) ^ ((h & 2) << 3)) + ((w & 1) << 3) + ((h & 1) << 2) + (k & 3)) % banks


def queue_cycles(activations, weights, strides, plane, design):
    """Steps, and cycles with conflicts, of two queues: of (x, y) and of (r, s, k)."""
    steps = cycles = 0
    for i in range(0, len(activations), design.activations_per_step):
        for f in range(0, len(weights), design.weights_per_step):
            taken = {}
            for x, y in activations[i : i + design.activations_per_step]:
                for r, s, k in weights[f : f + design.weights_per_step]:
                    w, h = (x - r) // strides[0], (y - s) // strides[1]
                    if 0 <= w < plane[0] and 0 <= h < plane[1]:
                        bank = bank_of(k, w, h, design.banks)
                        taken[bank] = taken.get(bank, 0) + 1
            steps += 1
            cycles += max([1, *taken.values()])
    return steps, (cycles if design.bank_conflicts else steps)


def until_barriers(busy, pes, design):
    """Cycles of a filter group, from those of each PE in each channel."""
    if design.barrier == "channel":
        return sum(max(of_pe) for of_pe in busy)
    return max(sum(of_pe[pe] for of_pe in busy) for pe in range(pes))


def scnn(problem, design):
    if not problem.strides:
        return scnn_dense(problem, design)
    ones, size, plane = padded_plane(problem)
    grid = design.pe_grid
    tile = [-(-n // side) for n, side in zip(size, grid, strict=True)]
    strides = (*problem.strides, 1)[:2]
    *kernel, channels, filters = problem.weights.shape
    per_group = filters // problem.groups
    kc = max(1, design.accumulators // math.prod(-(-n // side) for n, side in zip(plane, grid, strict=True)))
    if channels == 1 and problem.groups > 1:
        kc = 1
    pes = list(itertools.product(range(grid[0]), range(grid[1])))
    cycles = steps = products = worked = 0
    for group in range(problem.groups):
        for first in range(0, per_group, kc):
            numbers = [group * per_group + k for k in range(first, min(first + kc, per_group))]
            busy = []
            for c in range(channels):
                of_pe = []
                for px, py in pes:
                    total = 0
                    for phase in itertools.product(range(strides[0]), range(strides[1])):
                        acts = sorted(
                            (x, y)
                            for channel, x, y in ones
                            if channel == group * channels + c
                            and (x // tile[0], y // tile[1]) == (px, py)
                            and (x % strides[0], y % strides[1]) == phase
                        )
                        queue = []
                        for tap in itertools.product(*(range(n) for n in kernel)):
                            at = [t * d for t, d in zip(tap, problem.kernel_dilation, strict=True)]
                            r, s = [*at, 0][:2]
                            if (r % strides[0], s % strides[1]) == phase:
                                queue += [(r, s, k) for k in numbers if problem.weights[(*tap, c, k)] != 0]
                        more, lasted = queue_cycles(acts, queue, strides, plane, design)
                        steps += more
                        products += len(acts) * len(queue)
                        total += lasted
                    of_pe.append(total)
                busy.append(of_pe)
                worked += sum(of_pe)
            cycles += until_barriers(busy, len(pes), design)
    return scnn_result(problem, design, cycles, worked, steps, products)


def scnn_dense(problem, design):
    channels, filters = problem.weights.shape
    pes = math.prod(design.pe_grid)
    cycles = worked = steps = products = 0
    for line in problem.activations:
        busy = []
        for c in range(channels):
            if line[c] == 0:
                continue
            of_pe = []
            for pe in range(pes):
                held = range(pe * filters // pes, (pe + 1) * filters // pes)
                queue = [(0, 0, k) for k in held if problem.weights[c, k] != 0]
                more, lasted = queue_cycles([(0, 0)], queue, (1, 1), (1, 1), design)
                steps += more
                products += len(queue)
                of_pe.append(lasted)
            busy.append(of_pe)
            worked += sum(of_pe)
        cycles += until_barriers(busy, pes, design)
    return scnn_result(problem, design, cycles, worked, steps, products)


def scnn_result(problem, design, cycles, worked, steps, products):
    slots = design.weights_per_step * design.activations_per_step
    return {
        "cycles": cycles,
        "outside": products - effectual(problem),
        "fragmentation": steps * slots - products,
        "conflict": (worked - steps) * slots,
        "inter_pe": (cycles * math.prod(design.pe_grid) - worked) * slots,
    }


# SparTen


def channel_fastest(problem, line, channels):
    """Turns a line of the reduction axis, channel slowest, into one with channels fastest."""
    taps = len(line) // channels
    return [line[c * taps + tap] for tap in range(taps) for c in range(channels)]


def sparten(problem, design):
    channels, filters = problem.weights.shape[-2:]
    per_group = filters // problem.groups
    held = design.units * (2 if design.greedy_balance else 1)
    at_once = max(1, held // per_group)
    kernels = [channel_fastest(problem, line, channels) for line in scalar.kernel_matrix(problem)]
    windows = [
        [channel_fastest(problem, line, channels) for line in scalar.window_matrix(problem, group)]
        for group in range(problem.groups)
    ]
    positions = len(windows[0])
    slowest, joined = [0] * positions, 0
    for g in range(0, problem.groups, at_once):
        groups = range(g, min(g + at_once, problem.groups))
        numbers = [group * per_group + k for group in groups for k in range(per_group)]
        if design.greedy_balance:
            numbers.sort(key=lambda k: -sum(kernels[k]))
        for first in range(0, len(numbers), held):
            units = [[] for _ in range(design.units)]
            for place, k in enumerate(numbers[first : first + held]):
                units[place if place < design.units else 2 * design.units - 1 - place].append(k)
            for n in range(positions):
                joins = {k: join(k, n, groups, kernels, windows, channels, per_group, design) for u in units for k in u}
                times = [sum(joins[k] for k in unit) for unit in units]
                joined += sum(times)
                slowest[n] += max(times)
    of_cluster = [sum(slowest[a:b]) for a, b in spread(0, positions, design.clusters)]
    cycles, worked = max(of_cluster), sum(slowest)
    return {
        "cycles": cycles,
        "bubble": joined - effectual(problem),
        "inter_unit": worked * design.units - joined,
        "inter_cluster": (cycles * design.clusters - worked) * design.units,
    }


def join(k, n, groups, kernels, windows, channels, per_group, design):
    """Cycles in which filter k joins the channels of all groups that are broadcast; it has weights in its own."""
    taps = len(kernels[k]) // channels
    matches = []
    for tap in range(taps):
        for group in groups:
            for c in range(channels):
                both = kernels[k][tap * channels + c] & windows[group][n][tap * channels + c]
                matches.append(both if k // per_group == group else 0)
    return sum(max(1, sum(matches[at : at + design.chunk])) for at in range(0, len(matches), design.chunk))


# Eyeriss v2


def eyeriss_v2(problem, design):
    met_by_nonzeros = effectual(problem)
    channels, filters = problem.weights.shape[-2:]
    groups = problem.groups
    if channels == 1 and groups > 1:  # depthwise: nothing is skipped but what padding and dilation insert
        ones = {name: np.ones_like(getattr(problem, name)) for name in ("weights", "activations")}
        problem = dataclasses.replace(problem, **ones)
    per_group = filters // groups
    kernels = scalar.kernel_matrix(problem)
    windows = [scalar.window_matrix(problem, group) for group in range(groups)]
    positions, taps = len(windows[0]), len(kernels[0]) // channels
    pes = design.clusters * design.pes_per_cluster
    sizes = (groups, per_group, positions, channels)

    def dense_walk(count):
        blocks = [min(design.psums, count - at) for at in range(0, count, design.psums)]
        return sum(-(-block // design.macs_per_pe) for block in blocks)

    best: Any = None
    for parts in itertools.product(*(range(1, min(size, pes) + 1) for size in sizes)):
        if math.prod(parts) > pes:
            continue
        g, f, n, c = (-(-size // part) for size, part in zip(sizes, parts, strict=True))
        key = (g * dense_walk(f) * n * c, math.prod(parts), parts[1], parts[3], parts[2])
        if best is None or key < best[0]:
            best = (key, parts)
    ranges = [spread(0, size, part) for size, part in zip(sizes, best[1], strict=True)]
    most_filters = max(b - a for a, b in ranges[1])
    at_once = max(1, design.weights // min(design.psums, most_filters))
    passes = {}
    for pe, ((g0, g1), (f0, f1), (n0, n1), (c0, c1)) in enumerate(itertools.product(*ranges)):
        for group in range(g0, g1):
            for block, first in enumerate(range(f0, f1, design.psums)):
                held = [group * per_group + f for f in range(first, min(first + design.psums, f1))]
                for number, pair in enumerate(range(c0 * taps, c1 * taps, at_once)):
                    time = 0
                    for at in range(pair, min(pair + at_once, c1 * taps)):
                        met = sum(windows[group][n][at] for n in range(n0, n1))
                        time += met * -(-sum(kernels[k][at] for k in held) // design.macs_per_pe)
                    passes.setdefault((group - g0, block, number), {})[pe] = time
    used = math.prod(len(each) for each in ranges)
    worked = sum(sum(of.values()) for of in passes.values())
    if design.barrier == "pass":
        cycles = sum(max(of.values()) for of in passes.values())
    else:
        cycles = max(sum(of.get(pe, 0) for of in passes.values()) for pe in range(used))
    return {
        "cycles": cycles,
        "ineffectual": effectual(problem) - met_by_nonzeros,
        "fragmentation": worked * design.macs_per_pe - effectual(problem),
        "inter_pe": (cycles * used - worked) * design.macs_per_pe,
        "idle": cycles * (pes - used) * design.macs_per_pe,
    }
