"""Job cycles of one core, against a twin that runs mask by mask."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D
from phantom_jax.exact.lanes import packing
from phantom_jax.exact.lowering import streams
from phantom_jax.exact.simulate import job_counter
from phantom_jax.exact.words import WordCounter
from tests import cases
from tests.reference import scalar


def segments_of(length: int, rows: int) -> list[tuple[int, int]]:
    segments = [(r * length // rows, (r + 1) * length // rows) for r in range(rows)]
    return [(start, stop) for start, stop in segments if stop > start]


@given(cases.layers(batch=1), st.sampled_from(cases.ARCHS), st.integers(1, 9))
def test_cycles_of_every_job_and_segment(drawn: tuple[Layer, object], arch: Phantom2D, rows: int) -> None:
    layer, padding = drawn
    problem, twin = cases.problem(layer, 0, padding), cases.twin(arch)
    found = streams(layer, arch)
    segments = segments_of(found.length, rows)
    counter = job_counter(layer, found, arch)
    got = counter.count(0, segments)

    kernels = [scalar.chunk(line, twin) for line in scalar.kernel_matrix(problem)]
    windows = [[scalar.chunk(line, twin) for line in scalar.window_matrix(problem, g)] for g in range(problem.groups)]
    lost = {"fragmentation": 0, "intra_core": 0, "bubble": 0}
    effectual = 0
    for k, kernel in enumerate(kernels):
        window = windows[k // (found.filters // found.groups)]
        loads = [sum(map(sum, chunk)) for chunk in kernel]
        assert counter.loads[k].tolist() == (loads if found.axis == "positions" else [sum(loads)])
        for j in range(found.jobs):
            bits = kernel[j] if found.axis == "positions" else kernel
            pairs = [(j, n) if found.axis == "positions" else (n, j) for n in range(found.length)]
            masks = [scalar.counts_of(kernel[g], window[n][g]) for g, n in pairs]
            for s, (start, stop) in enumerate(segments):
                cycles, slots = scalar.run_stream(masks[start:stop], twin)
                dispatched = np.any(bits)
                assert got.cycles[k, j, s] == (cycles if dispatched else 0)
                if dispatched:
                    effectual += sum(map(sum, masks[start:stop]))
                    lost = {component: lost[component] + slots[component] for component in lost}
    assert counter.nonzero_weights == np.count_nonzero(layer.weights)
    assert got.effectual == effectual
    assert got.bins * arch.threads - effectual == lost["fragmentation"]
    assert (got.worked * arch.pes - got.bins) * arch.threads == lost["intra_core"]
    assert got.bubbles * arch.slots == lost["bubble"]


def assert_lanes_equal_words(layer: Layer, arch: Phantom2D, rows: int = 1) -> None:
    found = streams(layer, arch)
    segments = segments_of(found.length, rows)
    lanes, words = packing.lane_counter(layer, found, arch), WordCounter(layer, found, arch)
    np.testing.assert_array_equal(lanes.loads, words.loads)
    for image in range(layer.batch):
        got, expected = lanes.count(image, segments), words.count(image, segments)
        np.testing.assert_array_equal(got.cycles, expected.cycles)
        assert dataclasses.replace(got, cycles=expected.cycles) == expected


LANE_ARCHS = (
    *(arch for arch in cases.ARCHS if packing.covers_arch(arch)),
    Phantom2D(lookahead=1),
    Phantom2D(lookahead=32, selector="in_order"),
    Phantom2D(lookahead=33),
    Phantom2D(lookahead=50, selector="in_order"),
)


@given(cases.layers(), st.sampled_from(LANE_ARCHS), st.integers(1, 9))
def test_lanes_equal_words(drawn: tuple[Layer, object], arch: Phantom2D, rows: int) -> None:
    assert_lanes_equal_words(drawn[0], arch, rows)


@pytest.mark.parametrize(
    ("kernel", "channels", "filters", "groups", "options"),
    [
        ((3, 3), 70, 130, 1, {}),  # more filters than a tile has, more chunks than a byte
        ((3, 3), 3, 1100, 1, {"strides": 2}),  # more tiles of filters than a call has
        ((1, 1), 200, 5, 1, {}),
        ((5, 5), 13, 20, 1, {"padding": "VALID"}),  # 25 taps: chunks of 25 classes
        ((7, 7), 3, 70, 1, {"strides": 2}),
        ((3, 3), 90, 90, 90, {}),  # depthwise
        ((7, 7), 20, 40, 20, {"kernel_dilation": 2}),
        ((1, 3), 24, 12, 3, {}),
        ((2, 2), 8, 12, 2, {"input_dilation": 2, "padding": 1}),
    ],
)
def test_lanes_equal_words_on_large_layers(
    kernel: tuple[int, int], channels: int, filters: int, groups: int, options: dict
) -> None:
    rng = np.random.default_rng(len(options))
    weights = rng.random((*kernel, channels // groups, filters)) < 0.4
    activations = rng.random((2, 33, 31, channels)) < rng.random((2, 1, 1, channels))
    layer = Layer.conv(weights, activations, feature_group_count=groups, **options)
    assert_lanes_equal_words(layer, Phantom2D(lookahead=6), 3)


@pytest.mark.parametrize(("positions", "channels", "filters"), [(1, 20000, 300), (5, 3000, 20), (1, 300, 1000)])
def test_lanes_equal_words_along_chunks(positions: int, channels: int, filters: int) -> None:
    rng = np.random.default_rng(positions)
    layer = Layer.dense(rng.random((channels, filters)) < 0.1, rng.random((2, positions, channels)) < 0.3)
    assert streams(layer, Phantom2D(lookahead=6)).axis == "chunks"
    for rows in (1, 3):
        assert_lanes_equal_words(layer, Phantom2D(lookahead=6), rows)


def adversarial_streams(lookahead: int) -> list[list[int]]:
    """Counts that bring an automaton to the ends of its states: most open bins, then all of them filled, and so on."""
    half = lookahead // 2
    rng = np.random.default_rng(lookahead)
    return [
        [2] * half + [1] * (lookahead - half),
        [1] * half + [2] * (lookahead - half),
        [2] * lookahead,
        [1] * lookahead,
        [3] * lookahead,
        [1, 2] * half + [1] * (lookahead % 2),
        [2, 1] * half + [2] * (lookahead % 2),
        [1, 1, 2] * (lookahead // 3) + [2] * (lookahead % 3),
        [0] * (lookahead - 1) + [1],
        [2] * (lookahead - 1) + [1],
        [2] * (2 * lookahead // 3) + [1] * (lookahead - 2 * lookahead // 3),
        *rng.choice([1, 2], (4, lookahead), p=[0.6, 0.4]).tolist(),
    ]


@pytest.mark.parametrize(("lookahead", "selector"), [(3, "in_order"), (33, "out_of_order")])
def test_adversarial_streams(lookahead: int, selector: str) -> None:
    """One PE gets the stream, others nothing; on both kinds of streams, as the bits of a dense layer's activations."""
    arch = Phantom2D(lookahead=lookahead, selector=selector, intra_balance=False)
    streams_ = adversarial_streams(lookahead)
    expected = [max(scalar.issue_cycles(counts, cases.twin(arch))) or 1 for counts in streams_]
    bits = np.array([[[slot < count for slot in range(9)] for count in counts] for counts in streams_])
    along_positions = Layer.dense(np.ones((9, 1)), bits)
    along_chunks = Layer.dense(np.ones((9 * lookahead, 1)), bits.reshape(len(bits), -1))
    for layer in (along_positions, along_chunks):
        found = streams(layer, arch)
        counter = packing.lane_counter(layer, found, arch)
        got = [int(counter.count(image, [(0, lookahead)]).cycles.sum()) for image in range(len(bits))]
        assert found.length == lookahead
        assert got == expected


@pytest.mark.slow
@pytest.mark.parametrize("selector", ["in_order", "out_of_order"])
@pytest.mark.parametrize("lookahead", range(1, 65))
def test_adversarial_streams_of_every_lookahead(lookahead: int, selector: str) -> None:
    test_adversarial_streams(lookahead, selector)


@pytest.mark.parametrize("filters", [1, 3, 8, 9, 64, 65])
@pytest.mark.parametrize("entries", [1, 1 << 12])
def test_tiles_make_no_difference(filters: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(filters)
    layer = Layer.conv(rng.random((3, 3, 4, filters)) < 0.4, rng.random((1, 11, 11, 4)) < 0.6)
    arch = Phantom2D(lookahead=8)
    counter = WordCounter(layer, streams(layer, arch), arch)
    whole = counter.count(0, [(0, 121)])
    monkeypatch.setattr("phantom_jax.exact.words._TILE_ENTRIES", entries)
    tiled = counter.count(0, [(0, 121)])
    np.testing.assert_array_equal(whole.cycles, tiled.cycles)
    assert dataclasses.replace(whole, cycles=tiled.cycles) == tiled


def test_small_groups_that_stream_along_chunks_go_by_words() -> None:
    def layer(groups: int, filters: int) -> Layer:
        weights, activations = np.ones((7, 7, 2, filters)), np.ones((1, 9, 9, 2 * groups))
        return Layer.conv(weights, activations, padding="VALID", feature_group_count=groups)

    def counter(of: Layer) -> object:
        found = streams(of, arch)
        assert found.axis == "chunks"
        return job_counter(of, found, arch)

    arch = Phantom2D()
    assert isinstance(counter(layer(16, 32)), WordCounter)
    assert isinstance(counter(layer(2, 128)), packing.ChunkCounter)
    assert isinstance(counter(layer(1, 1)), packing.ChunkCounter)
