"""Lowering: every bit of every chunk, against the specification read aloud in scalar Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D
from phantom_jax.exact.lowering import lower_activations, lower_weights, streams
from tests import cases
from tests.reference import scalar


def unpack(words: np.ndarray, threads: int) -> np.ndarray:
    """Returns the bits `[..., threads]` of words `[..., words]`, thread 0 first."""
    bits = [words[..., t // 32] >> words.dtype.type(t % 32) & words.dtype.type(1) for t in range(threads)]
    return np.stack(bits, axis=-1)


@given(cases.layers(), st.sampled_from(cases.ARCHS))
def test_bits_and_sums(drawn: tuple[Layer, object], arch: Phantom2D) -> None:
    layer, padding = drawn
    twin = cases.twin(arch)
    problem = cases.problem(layer, 0, padding)
    matrix = scalar.kernel_matrix(problem)
    kernels = lower_weights(layer, arch)
    # [groups, G, P, W, K/groups] -> [K, G, P, W]
    words = np.moveaxis(kernels.words, -1, 1).reshape(layer.filters, *kernels.words.shape[1:-1])
    assert unpack(words, arch.threads).tolist() == [scalar.chunk(line, twin) for line in matrix]
    by_group = np.array(matrix).reshape(problem.groups, -1, layer.reduction)
    assert kernels.tap_sums.tolist() == by_group.sum(1).tolist()
    loads = [[sum(map(sum, chunk)) for chunk in scalar.chunk(line, twin)] for line in matrix]
    assert kernels.chunk_loads.swapaxes(1, 2).reshape(layer.filters, -1).tolist() == loads

    windows = lower_activations(layer, arch, 0)
    expected = [scalar.window_matrix(problem, group) for group in range(problem.groups)]
    chunked = [[scalar.chunk(line, twin) for line in group] for group in expected]
    assert unpack(windows.words.swapaxes(1, 2), arch.threads).tolist() == chunked
    assert windows.tap_sums.tolist() == np.array(expected).sum(1).tolist()


def test_slot_of_a_weight() -> None:
    """SPEC 3: the reduction index of a 2-D kernel is (c * Kw + kw) * Kh + kh; P = T = 3 puts kernel columns on PEs."""
    weights = np.zeros((3, 3, 2, 1), bool)
    weights[1, 2, 1, 0] = True  # kh 1, kw 2, channel 1
    words = lower_weights(Layer.conv(weights, np.ones((1, 4, 4, 2))), Phantom2D()).words
    assert np.argwhere(words).tolist() == [[0, 1, 2, 0, 0]]  # group 0, chunk 1, column 2
    assert words[0, 1, 2, 0, 0] == 1 << 1  # thread 1


def test_streams_along_positions_from_min_of_lookahead_and_chunks() -> None:
    weights = np.ones((90, 2), bool)  # ten chunks of nine slots
    for positions, lookahead, axis in [(9, 27, "chunks"), (10, 27, "positions"), (5, 6, "chunks"), (6, 6, "positions")]:
        layer = Layer.dense(weights, np.ones((1, positions, 90), bool))
        assert streams(layer, Phantom2D(lookahead=lookahead)).axis == axis


def test_slabs_make_no_difference(monkeypatch) -> None:
    layer = Layer.conv(np.ones((3, 3, 2, 1)), np.random.default_rng(0).random((1, 9, 7, 2)) < 0.5, strides=2)
    whole = lower_activations(layer, Phantom2D(), 0)
    monkeypatch.setattr("phantom_jax.exact.lowering._SLAB_BYTES", 1)
    sliced = lower_activations(layer, Phantom2D(), 0)
    np.testing.assert_array_equal(whole.words, sliced.words)
    np.testing.assert_array_equal(whole.tap_sums, sliced.tap_sums)
