"""Training, validation and test images of a data set: stratified by class, the same on every machine."""

import dataclasses

import numpy as np

from phantom_jax.checks import check_seed, integer, number
from phantom_jax.random import permutation
from phantom_jax.training.data.dataset import Dataset

_FOLDS = 2 << 32  # stream of the test folds, beside those of masks and epochs
_VALIDATION = 3 << 32  # streams of the validation images, one for each fold
_ORDER, _JITTER = 5 << 32, 6 << 32  # streams of the order of images within a part


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a data set.

    Attributes:
        images: float32 `[N, H, W, C]`, from 0 to 1.
        labels: int32 `[N]`.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set, without an image in common.

    Attributes:
        train: What a network is fitted to.
        validation: What decisions during training look at.
        test: What is reported.
    """

    train: Subset
    validation: Subset
    test: Subset


def split(dataset: Dataset, seed: int, fold: int = 0, folds: int = 5, validation: float = 0.1) -> Splits:
    """Splits a data set, each class alike.

    The `folds` test folds of a seed partition the images: as many runs, one for each fold, test each image once.
    Each class, and the whole, is spread over them as evenly as whole images allow. A data set with a test set of its
    own keeps it; `fold` then chooses among draws of the validation images and nothing else.

    The order of images is random, but each class is spread evenly over a part, so that its first images stand for all
    of it, however the data set is sorted.

    Args:
        dataset: The data set.
        seed: Seed of the draws, from 0 to 2^64 - 1.
        fold: Which of the folds is the test set, from 0.
        folds: How many there are, at least 2.
        validation: Share, above 0 and below 1, of each class that goes to validation, of the images that are not in the
            test set; rounded, but at least one image and not all.

    Raises:
        ValueError: An argument is not valid, or a class has too few images for each part to have one.
    """
    seed = check_seed(seed)
    if integer("folds", folds, minimum=1) < 2:
        raise ValueError(f"folds must be at least 2, got {folds}.")
    if integer("fold", fold, minimum=0) >= folds:
        raise ValueError(f"fold must be below the number of folds, {folds}, got {fold}.")
    share = number("validation", validation, "a number above 0 and below 1", lambda value: 0 < value < 1)
    _check_counts(dataset, max(folds, 4) if dataset.test_images is None else 2)

    labels = dataset.labels
    is_test = np.zeros(len(labels), bool)
    if dataset.test_images is not None and dataset.test_labels is not None:
        test = _mixed(dataset.test_images, dataset.test_labels, seed)
    else:
        order = permutation(seed, _FOLDS, len(labels))
        by_class = order[np.argsort(labels[order], kind="stable")]
        is_test[by_class[fold::folds]] = True
        test = _mixed(dataset.images, labels, seed, is_test)

    is_validation = np.zeros(len(labels), bool)
    order = permutation(seed, _VALIDATION + fold, len(labels))
    for label in range(len(dataset.classes)):
        left = order[(labels[order] == label) & ~is_test[order]]
        is_validation[left[: min(max(round(share * len(left)), 1), len(left) - 1)]] = True
    is_train = ~(is_test | is_validation)
    return Splits(
        _mixed(dataset.images, labels, seed, is_train),
        _mixed(dataset.images, labels, seed, is_validation),
        test,
    )


def _mixed(images: np.ndarray, labels: np.ndarray, seed: int, chosen: np.ndarray | None = None) -> Subset:
    """Returns images, all of them unless some are chosen, with their classes spread evenly over them."""
    order = permutation(seed, _ORDER, len(labels))
    if chosen is not None:
        order = order[chosen[order]]
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels[order])
    rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[labels[by_class]]
    jitter = permutation(seed, _JITTER, len(order)) / len(order)  # else rare classes would come too early
    places = by_class[np.argsort((rank + jitter) / counts[labels[by_class]], kind="stable")]
    return Subset(images[places], labels[places])


def _check_counts(dataset: Dataset, least: int) -> None:
    counts = np.bincount(dataset.labels)
    rarest = int(counts.argmin())
    if counts[rarest] < least:
        raise ValueError(
            f"Every class must have at least {least} images for this split (folds, validation), but class "
            f"{dataset.classes[rarest]} has {counts[rarest]}."
        )
