"""Folds, parts and the order of batches: what holds whatever the images are."""

import hashlib
import re
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from phantom_jax.training.data import Dataset, Subset, batch_indices, split


def numbered(counts: list[int], test: int = 0) -> Dataset:
    """Returns a data set with `counts` images of the classes, each image with its own number as its one pixel."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = (np.arange(len(labels)) / 65536)[:, None, None]
    own = {"test_images": np.ones((test, 1, 1)), "test_labels": np.zeros(test, int)} if test else {}
    return Dataset("numbered", images, labels, **own)  # pyright: ignore[reportArgumentType]


def numbers(dataset: Dataset, part: Subset) -> list[int]:
    """Returns which images a part has, once its labels are seen to be theirs."""
    which = (part.images.reshape(-1) * 65536).astype(int)
    np.testing.assert_array_equal(dataset.labels[which], part.labels)
    return which.tolist()


@hypothesis.given(st.lists(st.integers(7, 40), min_size=2, max_size=5), st.integers(2, 7), st.floats(0.01, 0.99))
def test_folds_partition_the_images_and_classes_evenly(counts: list[int], folds: int, validation: float) -> None:
    dataset, seen = numbered(counts), []
    for fold in range(folds):
        parts = split(dataset, seed=3, fold=fold, folds=folds, validation=validation)
        train, held, test = (numbers(dataset, part) for part in (parts.train, parts.validation, parts.test))
        assert sorted(train + held + test) == list(range(sum(counts)))
        assert sum(counts) // folds <= len(test) <= -(-sum(counts) // folds)
        for label, count in enumerate(counts):
            tested, validated, trained = (
                (part.labels == label).sum() for part in (parts.test, parts.validation, parts.train)
            )
            assert count // folds <= tested <= -(-count // folds)
            assert abs(validated - np.clip(validation * (count - tested), 1, count - tested - 1)) <= 0.5
            assert trained == count - tested - validated
        seen += test
    assert sorted(seen) == list(range(sum(counts)))


def test_splits_of_a_seed_never_change() -> None:
    """Golden: SHA-256 over which images are in which part, and in which order, made with NumPy 2.4 on x86-64."""
    dataset = numbered([40, 30, 20])
    members, ordered = hashlib.sha256(), hashlib.sha256()
    for part in vars(split(dataset, seed=1, fold=2)).values():
        members.update(str(sorted(numbers(dataset, part))).encode())
        ordered.update(str(numbers(dataset, part)).encode())
    assert members.hexdigest()[:16] == "6306f45606315c49"
    assert ordered.hexdigest()[:16] == "efa57a7422dac46b"


def test_the_first_images_of_a_part_hold_all_classes() -> None:
    dataset = numbered([400, 400, 200], test=50)
    pairs = set()
    for seed in range(8):
        parts = split(dataset, seed)
        for part in vars(parts).values():
            shares = np.bincount(part.labels, minlength=3) / len(part.labels)
            for count in range(1, len(part.labels)):
                assert (abs(np.bincount(part.labels[:count], minlength=3) - count * shares) < 2).all()
        pairs.add(tuple(parts.train.labels[:2]))
    assert len(pairs) > 2
    trained = numbers(dataset, split(dataset, 0).train)
    assert trained != sorted(trained)


def test_rare_classes_do_not_come_first() -> None:
    dataset = numbered([4500, *[10] * 50], test=1)
    first = [split(dataset, seed).train.labels[:100] > 0 for seed in range(10)]
    assert np.mean(first) == pytest.approx(0.1, abs=0.03)


def test_splits_differ_by_seed() -> None:
    dataset = numbered([40, 40])
    assert numbers(dataset, split(dataset, 0).test) != numbers(dataset, split(dataset, 1).test)


def test_an_own_test_set_is_kept() -> None:
    dataset = numbered([20, 30], test=3)
    held = []
    for fold in range(3):
        parts = split(dataset, seed=0, fold=fold, folds=3)
        assert parts.test.images.shape == (3, 1, 1, 1)
        assert parts.test.labels.tolist() == [0, 0, 0]
        assert sorted(numbers(dataset, parts.train) + numbers(dataset, parts.validation)) == list(range(50))
        assert np.bincount(parts.validation.labels).tolist() == [2, 3]
        held.append(numbers(dataset, parts.validation))
    assert held[0] != held[1] != held[2] != held[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be a non-negative integer, got -1."),
        ({"folds": 1}, "folds must be at least 2, got 1."),
        ({"folds": 2.5}, "folds must be a positive integer, got 2.5."),
        ({"fold": 5}, "fold must be below the number of folds, 5, got 5."),
        ({"fold": -1}, "fold must be a non-negative integer, got -1."),
        *(({"validation": x}, "validation must be a number above 0 and below 1, got ") for x in (0, 1, "a", None)),
        ({"folds": 8}, "must have at least 8 images for this split (folds, validation), but class 1 has 7."),
    ],
)
def test_bad_splits(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        split(numbered([9, 7]), **{"seed": 0, **options})


def test_classes_need_images_for_every_part() -> None:
    with pytest.raises(ValueError, match=r"at least 4 images .* class 0 has 3"):
        split(numbered([3, 9]), 0, folds=2)
    with pytest.raises(ValueError, match=r"at least 2 images .* class 0 has 1"):
        split(numbered([1, 9], test=1), 0)
    for fold in range(2):
        assert np.bincount(split(numbered([4, 9]), 0, fold, folds=2).train.labels)[0] == 1


# Order of the batches


@hypothesis.given(st.integers(1, 50), st.data())
def test_epochs_cover_the_images(count: int, data: st.DataObject) -> None:
    batch_size = data.draw(st.integers(1, count))
    steps = count // batch_size
    for epoch in range(3):
        batches = [batch_indices(epoch * steps + step, count, batch_size, seed=5) for step in range(steps)]
        seen = np.concatenate(batches)
        assert all(batch.shape == (batch_size,) for batch in batches)
        assert len(set(seen.tolist())) == steps * batch_size
        assert 0 <= seen.min() <= seen.max() < count


def test_orders_are_a_function_of_seed_and_step() -> None:
    """Golden: as first made with NumPy 2.4 on x86-64."""
    assert batch_indices(0, 8, 8, seed=0).tolist() == [4, 7, 3, 0, 5, 2, 6, 1]
    assert batch_indices(3, 8, 3, seed=7).tolist() == [1, 2, 6]
    orders = {tuple(batch_indices(step, 8, 8, seed).tolist()) for step in range(5) for seed in range(5)}
    assert len(orders) == 25
    with pytest.raises(ValueError, match="read-only"):
        batch_indices(0, 8, 8, seed=0)[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 9, 0), "batch_size must be at most 8, the number of training images, got 9."),
        ((-1, 8, 4, 0), "step must be a non-negative integer, got -1."),
        ((0, 0, 4, 0), "count must be a positive integer, got 0."),
        ((0, 8, 0, 0), "batch_size must be a positive integer, got 0."),
        ((0, 8, 4, 0.5), "seed must be a non-negative integer, got 0.5."),
    ],
)
def test_bad_batches(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        batch_indices(*arguments)
