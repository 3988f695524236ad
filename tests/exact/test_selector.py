"""The top-down selector: the specification's examples, and a twin that issues cycle by cycle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_jax.exact.selector import issue_cycles, selector_bins
from tests.reference import scalar

EXAMPLES = [  # SPEC 7: counts, selector, cycles
    ([2, 1, 3, 1, 1, 1], "in_order", 3),
    ([1, 1, 2, 2, 1], "in_order", 3),
    ([1, 1, 2, 2, 1], "out_of_order", 3),
    ([2, 2, 1, 1, 3, 0, 1], "in_order", 5),
    ([2, 2, 1, 1, 3, 0, 1], "out_of_order", 4),
]


def bins(counts: list[int], selector: str, threads: int) -> int:
    return int(jax.jit(selector_bins(selector, threads))(jnp.array(counts, jnp.uint8)))


@pytest.mark.parametrize(("counts", "selector", "cycles"), EXAMPLES)
def test_examples_of_the_specification(counts: list[int], selector: str, cycles: int) -> None:
    assert bins(counts, selector, 3) == cycles
    assert max(issue_cycles(counts, selector, 3)) == cycles
    assert max(scalar.issue_cycles(counts, scalar.Arch(selector=selector))) == cycles


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 8, 36])
@pytest.mark.parametrize("lookahead", [1, 8, 27, 33, 70, 130])
def test_equals_issuing_cycle_by_cycle(threads: int, lookahead: int) -> None:
    rng = np.random.default_rng([threads, lookahead])
    streams = rng.integers(0, threads + 1, (200, lookahead))
    streams[50:100] = rng.choice([threads // 2, threads // 2 + 1], (50, lookahead))  # hard to pack
    streams[100:150] *= rng.integers(0, 2, (50, lookahead))  # mostly empty
    streams[0], streams[1], streams[2] = 0, threads, 1
    streams[3] = np.sort(streams[3])[::-1]
    for selector in ("in_order", "out_of_order"):
        got = jax.jit(jax.vmap(selector_bins(selector, threads)))(streams.astype(np.uint8))
        arch = scalar.Arch(threads=threads, selector=selector)
        assert got.tolist() == [max(scalar.issue_cycles(counts, arch)) for counts in streams.tolist()]


EACH = {name: jax.jit(jax.vmap(selector_bins(name, 3))) for name in ("in_order", "out_of_order")}


@given(st.lists(st.lists(st.integers(0, 3), min_size=30, max_size=30), min_size=8, max_size=8))
def test_out_of_order_is_never_slower_on_one_pe(blocks: list[list[int]]) -> None:
    counts = np.array(blocks)
    in_order, out_of_order = (np.asarray(EACH[name](counts.astype(np.uint8))) for name in ("in_order", "out_of_order"))
    assert (-(-counts.sum(1) // 3) <= out_of_order).all()
    assert (out_of_order <= in_order).all()
    assert (in_order <= (counts > 0).sum(1)).all()


@given(st.lists(st.integers(0, 5), max_size=40), st.sampled_from(["in_order", "out_of_order"]))
def test_issue_cycles_are_those_of_the_reference(counts: list[int], selector: str) -> None:
    expected = scalar.issue_cycles(counts, scalar.Arch(threads=5, selector=selector))
    assert issue_cycles(counts, selector, 5) == expected
