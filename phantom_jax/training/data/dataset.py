"""A data set: images and labels, checked once and here."""

import dataclasses
from typing import Any

import numpy as np

_LAYOUT = "[N, H, W] or [N, H, W, C]"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels.

    Images may come as uint8, which is divided by 255, or as floats from 0 to 1, and without their last axis. They are
    neither shifted nor scaled further: black stays zero, so that the first layer's activations are as sparse as the
    pictures.

    Attributes:
        name: What the data set is called in results.
        images: float32 `[N, H, W, C]`, from 0 to 1.
        labels: int32 `[N]`, indices of `classes`; every class has an image.
        classes: Names of the classes; by default the labels as text.
        test_images: float32 `[M, H, W, C]`, if the source has a test set of its own, else None.
        test_labels: int32 `[M]`, likewise.
        notes: What a user should know about how it was read.

    Raises:
        ValueError: An array is of the wrong shape, type or values, arrays do not match, or there are fewer than two
            classes.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validates everything, and brings images and labels into their one form."""
        images = _images("images", self.images)
        labels = _labels("labels", self.labels, "images", len(images))
        classes = _classes(self.classes, labels)
        values = {"images": images, "labels": labels, "classes": classes}
        if (self.test_images is None) != (self.test_labels is None):
            lacking = "test_images" if self.test_images is None else "test_labels"
            raise ValueError(f"test_images and test_labels go together, but {lacking} is missing.")
        if self.test_images is not None:
            test_images = _images("test_images", self.test_images)
            test_labels = _labels("test_labels", self.test_labels, "test_images", len(test_images))
            if test_images.shape[1:] != images.shape[1:]:
                raise ValueError(
                    f"test_images must be of shape {images.shape[1:]}, as images are, got {test_images.shape[1:]}."
                )
            if test_labels.max() >= len(classes):
                raise ValueError(
                    f"test_labels must be below {len(classes)}, as labels of images are, got {test_labels.max()}."
                )
            values |= {"test_images": test_images, "test_labels": test_labels}
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _images(argument: str, value: Any) -> np.ndarray:
    """Returns images as float32 `[N, H, W, C]`."""
    images = np.asarray(value)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(f"{argument} must be {_LAYOUT}, none of them 0, got shape {images.shape}.")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise ValueError(
            f"{argument} must be {_LAYOUT}, got shape {images.shape}, which looks like [N, C, H, W]: "
            "transpose(0, 2, 3, 1) moves the channels to the end."
        )
    if images.dtype == np.uint8:
        images = np.divide(images, 255, dtype=np.float32, order="C")
    elif images.dtype.kind == "f":
        if not np.isfinite(images).all():
            raise ValueError(f"{argument} must be finite, got NaN or infinity.")
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                f"{argument} of a float type must lie from 0 to 1, got values from {images.min():g} to "
                f"{images.max():g}."
            )
        images = np.ascontiguousarray(images, np.float32)
    else:
        raise ValueError(f"{argument} must be of type uint8 or a float type, got {images.dtype}.")
    return images if images.ndim == 4 else images[..., None]


def _labels(argument: str, value: Any, of: str, count: int) -> np.ndarray:
    """Returns labels as int32 `[N]`."""
    labels = np.asarray(value)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{argument} must be of an integer type, got {labels.dtype}.")
    if labels.ndim != 1:
        raise ValueError(f"{argument} must be [N], one integer for each image, got shape {labels.shape}.")
    if len(labels) != count:
        raise ValueError(f"{argument} must be as many as {of}: got {len(labels)} labels for {count} images.")
    if labels.min() < 0:
        raise ValueError(f"{argument} must not be negative, got {labels.min()}.")
    if labels.max() >= np.iinfo(np.int32).max:
        raise ValueError(f"{argument} must be below 2^31 - 1, got {labels.max()}.")
    return labels.astype(np.int32, copy=False)


def _classes(names: Any, labels: np.ndarray) -> tuple[str, ...]:
    """Returns the names of the classes, of which each has an image."""
    names = tuple(map(str, names))
    present = np.unique(labels)
    if names and present[-1] >= len(names):
        raise ValueError(f"labels must be below {len(names)}, the number of classes, got {present[-1]}.")
    expected = np.arange(len(names) or len(present))
    gap = np.setdiff1d(expected, present)
    if gap.size:
        raise ValueError(
            f"labels must count from 0 to {max(len(names) - 1, present[-1])} without a gap, but no image has label "
            f"{gap[0]}."
        )
    if len(present) < 2:
        raise ValueError(f"labels must be of at least two classes, got {len(present)}.")
    return names or tuple(map(str, present))
