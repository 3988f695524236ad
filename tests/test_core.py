"""Job cycles of one core, against a twin that runs mask by mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D
from phantom_jax.core import count_jobs
from phantom_jax.lowering import lower_activations, lower_weights, streams
from tests import cases
from tests.reference import scalar


@given(cases.layers(batch=1), st.sampled_from(cases.ARCHS), st.integers(1, 9))
def test_cycles_of_every_job_and_segment(drawn: tuple[Layer, object], arch: Phantom2D, rows: int) -> None:
    layer, padding = drawn
    problem, twin = cases.problem(layer, 0, padding), cases.twin(arch)
    cut = streams(layer, arch)
    segments = [(r * cut.length // rows, (r + 1) * cut.length // rows) for r in range(rows)]
    segments = [(start, stop) for start, stop in segments if stop > start]
    got = count_jobs(lower_weights(layer, arch), lower_activations(layer, arch, 0), cut, segments, arch)

    kernels = [scalar.chunk(line, twin) for line in scalar.kernel_matrix(problem)]
    windows = [[scalar.chunk(line, twin) for line in scalar.window_matrix(problem, g)] for g in range(problem.groups)]
    lost = {"fragmentation": 0, "intra_core": 0, "bubble": 0}
    effectual = 0
    for k, kernel in enumerate(kernels):
        window = windows[k // (cut.filters // cut.groups)]
        for j in range(cut.jobs):
            bits = kernel[j] if cut.axis == "positions" else kernel
            pairs = [(j, n) if cut.axis == "positions" else (n, j) for n in range(cut.length)]
            masks = [scalar.counts_of(kernel[g], window[n][g]) for g, n in pairs]
            for s, (start, stop) in enumerate(segments):
                cycles, slots = scalar.run_stream(masks[start:stop], twin)
                dispatched = np.any(bits)
                assert got.cycles[k, j, s] == (cycles if dispatched else 0)
                if dispatched:
                    effectual += sum(map(sum, masks[start:stop]))
                    lost = {component: lost[component] + slots[component] for component in lost}
    assert got.bins * arch.threads - effectual == lost["fragmentation"]
    assert (got.worked * arch.pes - got.bins) * arch.threads == lost["intra_core"]
    assert got.bubbles * arch.slots == lost["bubble"]


@pytest.mark.parametrize("filters", [1, 3, 8, 9, 64, 65])
@pytest.mark.parametrize("entries", [1, 1 << 12])
def test_tiles_make_no_difference(filters: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(filters)
    layer = Layer.conv(rng.random((3, 3, 4, filters)) < 0.4, rng.random((1, 11, 11, 4)) < 0.6)
    arch = Phantom2D(lookahead=8)
    lowered = lower_weights(layer, arch), lower_activations(layer, arch, 0), streams(layer, arch), [(0, 121)], arch
    whole = count_jobs(*lowered)
    monkeypatch.setattr("phantom_jax.core._TILE_ENTRIES", entries)
    tiled = count_jobs(*lowered)
    np.testing.assert_array_equal(whole.cycles, tiled.cycles)
    assert (whole.bins, whole.worked, whole.bubbles) == (tiled.bins, tiled.worked, tiled.bubbles)
