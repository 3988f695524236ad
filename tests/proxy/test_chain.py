"""The selector's automaton and its Markov chain, against the selector itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles_from
from phantom_jax.exact.selector import automaton, issue_cycles
from phantom_jax.proxy.jobs.chain import bins_distribution, count_probabilities, has_chain

SELECTORS = [
    ("in_order", 1, 4),
    ("in_order", 3, 5),
    ("in_order", 5, 4),
    ("out_of_order", 1, 4),
    ("out_of_order", 2, 6),
    ("out_of_order", 3, 5),
    ("out_of_order", 4, 5),
    ("out_of_order", 6, 4),
]


def bins(counts: tuple[int, ...], selector: str, threads: int) -> int:
    return max(issue_cycles(counts, selector, threads), default=0)


@pytest.mark.parametrize(
    ("selector", "threads", "lookahead"), [*SELECTORS, ("out_of_order", 3, 40), ("in_order", 9, 40)]
)
def test_automaton_opens_as_many_bins_as_the_selector(selector: str, threads: int, lookahead: int) -> None:
    table = automaton(selector, threads, lookahead, 1000)
    assert table is not None
    rng = np.random.default_rng(0)
    for _ in range(100):
        counts = rng.integers(0, threads + 1, lookahead)
        state = opened = 0
        for count in counts[counts > 0]:
            opened += table.opens[state, count - 1]
            state = table.after[state, count - 1]
        assert opened == bins(tuple(counts.tolist()), selector, threads)


def test_states_of_three_threads_are_one_number() -> None:
    table = automaton("out_of_order", 3, 27, 1000)
    assert table is not None
    assert len(table.depth) == 27 + 2  # none, one of two free threads, one to 27 of one free thread


def test_too_many_states_are_none() -> None:
    assert automaton("out_of_order", 8, 27, 1000) is None
    assert not has_chain("out_of_order", 8, 27)
    assert has_chain("in_order", 8, 27)


def test_counts_of_independent_bits() -> None:
    chances = np.array([0.2, 0.5, 0.9])
    expected = np.zeros(4)
    for drawn in itertools.product((0, 1), repeat=3):
        expected[sum(drawn)] += np.where(drawn, chances, 1 - chances).prod()
    np.testing.assert_allclose(count_probabilities(jnp.asarray(chances)), expected, rtol=1e-6)


@pytest.mark.parametrize(("selector", "threads", "lookahead"), SELECTORS)
def test_distribution_and_its_gradient_by_enumeration(selector: str, threads: int, lookahead: int) -> None:
    rng = np.random.default_rng(1)
    counts = rng.dirichlet(np.ones(threads + 1), (lookahead, 2)).transpose(0, 2, 1)  # [L, T + 1, units]
    weigh = rng.random((2, lookahead + 1))
    expected, gradient = np.zeros((2, lookahead + 1)), np.zeros_like(counts)
    for drawn in itertools.product(range(threads + 1), repeat=lookahead):
        needed = bins(drawn, selector, threads)
        chances = np.stack([counts[entry, count] for entry, count in enumerate(drawn)])
        expected[:, needed] += chances.prod(0)
        for entry, count in enumerate(drawn):
            gradient[entry, count] += np.delete(chances, entry, 0).prod(0) * weigh[:, needed]
    with jax.enable_x64(True):
        np.testing.assert_allclose(bins_distribution(jnp.asarray(counts), selector), expected, atol=1e-12)
        derivative = jax.grad(lambda counts: (bins_distribution(counts, selector) * weigh).sum())(jnp.asarray(counts))
        np.testing.assert_allclose(derivative, gradient, atol=1e-12)


@pytest.mark.parametrize("lookahead", [9, 10, 27, 64])
def test_distributions_sum_to_one_over_all_layouts(lookahead: int) -> None:
    counts = np.random.default_rng(2).dirichlet(np.ones(4), (lookahead, 3)).transpose(0, 2, 1)
    chances = bins_distribution(jnp.asarray(counts, jnp.float32), "out_of_order")
    assert chances.shape == (3, lookahead + 1)
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-5)


@pytest.mark.slow
def test_gradient_of_a_wide_dense_layer_over_several_images() -> None:
    rng = np.random.default_rng(0)
    layer = Layer.dense(np.full((576, 64), 0.3), rng.random((2, 576)) < 0.5)  # XLA's sums of many axes crashed here
    calibration = calibrate(layer, Phantom2D())
    gradient = jax.grad(lambda weights: expected_cycles_from(calibration, weights).sum())(layer.weights)
    assert np.isfinite(gradient).all()
    assert (gradient[layer.activations.any(0)] != 0).all()
