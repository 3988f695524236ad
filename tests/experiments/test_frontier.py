"""What is needed at equal accuracy, by hand."""

import math
from typing import Any

import numpy as np
import pytest

from experiments.cooptimize.frontier import DENSE, Outcome, at_equal_accuracy, ratios, share_at


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
    return Outcome(method, target, fold, np.arange(100) < right, np.full(10, share), str(fold))


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
    found = at_equal_accuracy(OUTCOMES, accuracy_drop=0.04, resamples=50)
    assert found["ours"]["share"].shape == (51,)
    np.testing.assert_allclose(found["ours"]["share"][0], math.sqrt(0.1 * 0.05))
    np.testing.assert_allclose(found["theirs"]["share"][0], math.sqrt(0.2 * 0.1))
    compared = ratios(found, "ours")
    assert compared["ours"] == (1, 1, 1)
    assert compared["theirs"] == pytest.approx((2, 2, 2))  # draws are paired, and both are the same curve
    assert compared["hopeless"][0] > compared["theirs"][0]
    assert not found["ours"]["is_bound"][0]
    assert at_equal_accuracy(OUTCOMES, accuracy_drop=0.2, resamples=1)["ours"]["is_bound"].all()
    assert {method: values["is_reached"].all() for method, values in found.items()} == {
        "ours": True,
        "theirs": True,
        "hopeless": False,  # its curve ends in the dense network all the same
    }


def test_intervals_widen_with_chance() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        Outcome(method, target, fold, rng.random(400) < right, rng.normal(share, 0.01, 100), str(fold))
        for fold in range(3)
        for method, target, right, share in (
            (DENSE, None, 0.98, 1.0),
            ("ours", 0.1, 0.97, 0.1),
            ("ours", 0.05, 0.9, 0.05),
            ("theirs", 0.2, 0.97, 0.2),
            ("theirs", 0.1, 0.9, 0.1),
        )
    ]
    ratio, low, high = ratios(at_equal_accuracy(drawn, accuracy_drop=0.03, resamples=300), "ours")["theirs"]
    assert low < ratio < high
    assert 1.2 < low < 2 < high < 3.3


def test_images_that_folds_share_are_drawn_once() -> None:
    """Five times the same 400 images are no more than 400: the spread is that of one fold, not of five."""
    rng = np.random.default_rng(0)
    right, shares = rng.random(400) < 0.9, rng.normal(0.1, 0.02, 400)
    spreads = {}
    for name, test_sets in (("own", "abcde"), ("shared", "aaaaa"), ("one", "a")):
        drawn = [
            outcome
            for fold, test_set in enumerate(test_sets)
            for outcome in (
                Outcome(DENSE, None, fold, np.ones(400, bool), np.ones(400), test_set),
                Outcome("ours", 0.1, fold, right, shares, test_set),
            )
        ]
        spreads[name] = at_equal_accuracy(drawn, accuracy_drop=0.5, resamples=400)["ours"]["share"][1:].std()
    assert spreads["shared"] == pytest.approx(spreads["one"], rel=0.2)
    assert spreads["own"] == pytest.approx(spreads["one"] / 5**0.5, rel=0.2)


def test_draws_without_a_counted_image_are_left_out() -> None:
    rng = np.random.default_rng(0)
    few = [
        Outcome(method, None if method == DENSE else 0.1, 0, rng.random(50) < 0.9, np.full(2, share), "only")
        for method, share in ((DENSE, 1.0), ("ours", 0.1))
    ]
    found = at_equal_accuracy(few, accuracy_drop=0.5, resamples=200)["ours"]["share"]
    assert 100 < len(found) < 200
    assert np.isfinite(found).all()


def test_outcomes_of_a_fold_must_be_on_the_same_images() -> None:
    other = Outcome("ours", 0.1, 0, np.ones(100, bool), np.ones(10), "other")
    with pytest.raises(ValueError, match="on the same test images"):
        at_equal_accuracy([OUTCOMES[0], other], accuracy_drop=0.01, resamples=1)


@pytest.mark.parametrize("lacking", [0, 3])
def test_each_fold_must_have_each_point(lacking: int) -> None:
    with pytest.raises(ValueError, match="every point in every fold"):
        at_equal_accuracy(OUTCOMES[:lacking] + OUTCOMES[lacking + 1 :], accuracy_drop=0.01, resamples=1)


def test_bad_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="accuracy_drop must be a number from 0 to 1, got nan"):
        at_equal_accuracy(OUTCOMES, accuracy_drop=math.nan, resamples=1)
    with pytest.raises(ValueError, match="resamples must be a positive integer, got 0"):
        at_equal_accuracy(OUTCOMES, accuracy_drop=0.01, resamples=0)
    with pytest.raises(ValueError, match="ours must be one of ours, theirs, hopeless, got 'mine'"):
        ratios(at_equal_accuracy(OUTCOMES, accuracy_drop=0.01, resamples=1), "mine")
