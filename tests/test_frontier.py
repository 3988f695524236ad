"""What is needed at equal accuracy, by hand."""

import math
from typing import Any

import numpy as np
import pytest

from phantom_jax.frontier import DENSE, Outcome, at_equal_accuracy, ratios, share_at


@pytest.mark.parametrize(
    ("accuracies", "shares", "accuracy", "expected"),
    [
        ([0.9, 1.0], [0.1, 0.4], 0.95, 0.2),  # half way in the logarithm
        ([1.0, 0.9], [0.4, 0.1], 0.95, 0.2),
        ([0.9, 1.0], [0.1, 0.4], 1.0, 0.4),
        ([0.9, 1.0], [0.1, 0.4], 0.8, 0.1),  # an upper bound
        ([0.9, 1.0], [0.1, 0.4], 1.1, math.inf),
        ([0.9, 0.8, 1.0], [0.1, 0.2, 0.4], 0.95, 0.2),  # the second is surpassed by the first
    ],
)
def test_share_at_an_accuracy(accuracies: Any, shares: Any, accuracy: float, expected: float) -> None:
    assert share_at(accuracies, shares, accuracy) == pytest.approx(expected)


def outcome(method: str, target: float | None, fold: int, right: int, share: float) -> Outcome:
    return Outcome(method, target, fold, np.arange(100) < right, np.full(10, share))


OUTCOMES = [
    outcome(*point)
    for fold, worse in ((0, 0), (1, 2))
    for point in (
        (DENSE, None, fold, 98 - worse, 1.0),
        ("ours", 0.1, fold, 98 - worse, 0.1),
        ("ours", 0.05, fold, 90 - worse, 0.05),
        ("theirs", 0.2, fold, 98 - worse, 0.2),
        ("theirs", 0.1, fold, 90 - worse, 0.1),
        ("hopeless", 0.2, fold, 10, 0.2),
    )
]


def test_methods_are_compared_at_equal_accuracy() -> None:
    found = at_equal_accuracy(OUTCOMES, loss=0.04, resamples=50)
    assert found["ours"]["share"].shape == (51,)
    np.testing.assert_allclose(found["ours"]["share"][0], math.sqrt(0.1 * 0.05))
    np.testing.assert_allclose(found["theirs"]["share"][0], math.sqrt(0.2 * 0.1))
    compared = ratios(found, "ours")
    assert compared["ours"] == (1, 1, 1)
    assert compared["theirs"] == pytest.approx((2, 2, 2))  # draws are paired, and both are the same curve
    assert compared["hopeless"][0] > compared["theirs"][0]
    assert not found["ours"]["is_bound"][0]
    assert at_equal_accuracy(OUTCOMES, loss=0.2, resamples=1)["ours"]["is_bound"].all()


def test_intervals_widen_with_chance() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        Outcome(method, target, fold, rng.random(400) < right, rng.normal(share, 0.01, 100))
        for fold in range(3)
        for method, target, right, share in (
            (DENSE, None, 0.98, 1.0),
            ("ours", 0.1, 0.97, 0.1),
            ("ours", 0.05, 0.9, 0.05),
            ("theirs", 0.2, 0.97, 0.2),
            ("theirs", 0.1, 0.9, 0.1),
        )
    ]
    ratio, low, high = ratios(at_equal_accuracy(drawn, loss=0.03, resamples=300), "ours")["theirs"]
    assert low < ratio < high
    assert 1.2 < low < 2 < high < 3.3


@pytest.mark.parametrize("lacking", [0, 3])
def test_each_fold_must_have_each_point(lacking: int) -> None:
    with pytest.raises(ValueError, match="every point in every fold"):
        at_equal_accuracy(OUTCOMES[:lacking] + OUTCOMES[lacking + 1 :], loss=0.01, resamples=1)
