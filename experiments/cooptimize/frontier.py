"""Accuracy against cycles: what methods need for the same accuracy, and how sure that is.

This model's choice throughout: a method is a curve through its points, and the dense network is the end of each.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from phantom_jax.checks import integer, number, one_of

DENSE = "dense"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A network on the test images of a fold.

    Attributes:
        method: What made it sparse, or `DENSE`.
        target: What the method was asked for; None for `DENSE`.
        fold: The fold.
        correct: Whether the class of each test image is predicted; bool [images], in order.
        shares: Exact cycles of the first test images, as a share of those without skipping; float [counted].
        test_set: Names the test images and their order. Folds may have images of their own or all the same.
    """

    method: str
    target: float | str | None
    fold: int
    correct: np.ndarray
    shares: np.ndarray
    test_set: str

    @property
    def point(self) -> tuple[str, float | str | None]:
        """The method and its target."""
        return self.method, self.target


def share_at(accuracies: Sequence[float], shares: Sequence[float], accuracy: float) -> float:
    """Returns the share of cycles at which a method reaches an accuracy.

    Between points it is interpolated, linearly in accuracy and in the logarithm of the share. A point that another one
    of fewer cycles surpasses does not count.

    Args:
        accuracies: Of each point.
        shares: Likewise, above 0.
        accuracy: Wanted.

    Returns:
        The share; that of the point of fewest cycles, an upper bound, if it is accurate enough; infinity if none is.
    """
    reached, before = -np.inf, 0.0
    for share, value in sorted(zip(shares, accuracies, strict=True)):
        if value >= accuracy:
            if reached == -np.inf:
                return float(share)
            part = (accuracy - reached) / (value - reached)
            return float(np.exp(np.log(before) + part * (np.log(share) - np.log(before))))
        if value > reached:
            reached, before = value, share
    return float(np.inf)


def at_equal_accuracy(
    outcomes: Sequence[Outcome], accuracy_drop: float, resamples: int, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Returns what each method needs at the dense network's accuracy minus a drop, with draws that say how sure it is.

    Folds are drawn with replacement, then test images: of each fold its own, or one draw of those that folds share. One
    draw serves all methods, so that they are paired.

    Args:
        outcomes: Of the same points in every fold, `DENSE` among them.
        accuracy_drop: What may be lost of the dense network's accuracy.
        resamples: Draws; those without an image whose cycles were counted are left out.
        seed: Of the draws.

    Returns:
        By method: `share`, its share of cycles, [1 + resamples], the first of the folds as they are; and, likewise,
        `is_bound`, whether that is the method's point of fewest cycles, which was accurate enough, so that fewer may
        do; and `is_reached`, whether a point of the method, not only the dense network, was accurate enough.

    Raises:
        ValueError: A fold lacks a point that another one has, or has several test sets, or there is no `DENSE`, or
            accuracy_drop or resamples are not valid.
    """
    number("accuracy_drop", accuracy_drop, "a number from 0 to 1", lambda value: 0 <= value <= 1)
    integer("resamples", resamples, minimum=1)
    by_key = {(outcome.point, outcome.fold): outcome for outcome in outcomes}
    points = list(dict.fromkeys(outcome.point for outcome in outcomes))
    folds = sorted({outcome.fold for outcome in outcomes})
    missing = [f"{point} of fold {fold}" for point in points for fold in folds if (point, fold) not in by_key]
    if missing or (DENSE, None) not in points:
        raise ValueError(f"outcomes must hold every point in every fold, and the dense network; {missing} are missing.")
    if len({(outcome.fold, outcome.test_set) for outcome in outcomes}) > len(folds):
        raise ValueError("outcomes of a fold must be on the same test images in the same order, got several test sets.")
    accuracies, shares = _draws([[by_key[point, fold] for point in points] for fold in folds], resamples, seed)
    dense = points.index((DENSE, None))
    wanted = accuracies[:, dense] - accuracy_drop
    found = {}
    for method in dict.fromkeys(method for method, _ in points if method != DENSE):
        own = [index for index, point in enumerate(points) if point[0] == method]
        chosen = [*own, dense]
        share = [
            share_at(a[chosen].tolist(), s[chosen].tolist(), float(w))
            for a, s, w in zip(accuracies, shares, wanted, strict=True)
        ]
        found[method] = {
            "share": np.array(share),
            "is_bound": np.array(share) == shares[:, chosen].min(1),
            "is_reached": (accuracies[:, own] >= wanted[:, None]).any(1),
        }
    return found


def _draws(of_folds: Sequence[Sequence[Outcome]], resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns accuracies and shares of each draw and point; the first draw is what there is."""
    rng = np.random.default_rng(seed)
    folds = len(of_folds)
    times = rng.multinomial(folds, np.full(folds, 1 / folds), resamples)  # [draws, folds]
    times = np.concatenate([np.ones((1, folds), int), times])
    test_sets = [of_fold[0].test_set for of_fold in of_folds]
    shared: dict[str, np.ndarray] = {}  # draws of images that several folds have
    sums = np.zeros((2, resamples + 1, len(of_folds[0])))  # of images that are right, and of cycles
    counts = np.zeros((2, resamples + 1, 1))
    for of_fold, repeats, test_set in zip(of_folds, times.T, test_sets, strict=True):
        correct = np.stack([outcome.correct for outcome in of_fold]).astype(float)  # [points, images]
        shares = np.stack([outcome.shares for outcome in of_fold])
        count = correct.shape[1]
        if test_sets.count(test_set) == 1:
            drawn = rng.multinomial(count * repeats, np.full(count, 1 / count))
        else:
            if test_set not in shared:
                shared[test_set] = rng.multinomial(count, np.full(count, 1 / count), resamples + 1)
            drawn = repeats[:, None] * shared[test_set]
        drawn[0] = 1
        first = drawn[:, : shares.shape[1]]
        sums += np.stack([drawn @ correct.T, first @ shares.T])
        counts += np.stack([drawn.sum(1, keepdims=True), first.sum(1, keepdims=True)])
    accuracies, shares = sums / np.maximum(counts, 1)
    some = counts[1, :, 0] > 0
    return accuracies[some], shares[some]


def ratios(found: Mapping[str, Mapping[str, np.ndarray]], ours: str) -> dict[str, tuple[float, float, float]]:
    """Returns how many times the cycles of one method the others need, with a 95% interval.

    Args:
        found: See `at_equal_accuracy`.
        ours: The method that others are compared with.

    Raises:
        ValueError: There is no such method.
    """
    one_of("ours", ours, tuple(found))
    result = {}
    for method, values in found.items():
        draws = values["share"] / found[ours]["share"]
        low, high = np.quantile(draws[1:], [0.025, 0.975], method="nearest")
        result[method] = float(draws[0]), float(low), float(high)
    return result
