"""CIFAR-10 as its authors publish it for Python: pickles of arrays.

A pickle from a stranger can run code, so these are read without any: where one asks for a class or function of NumPy,
it gets a stand-in that can hold bytes and do nothing else. (NumPy's own would not be safe: `ndarray`, called with bytes
for an array of objects, takes them for addresses.)
"""

import pathlib
import pickle
from typing import Any

import numpy as np

from phantom_jax.training.data.dataset import Dataset

CIFAR_FOLDER = "cifar-10-batches-py"
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST, _META = "test_batch", "batches.meta"
_SIDE, _CHANNELS = 32, 3


def is_cifar(path: pathlib.Path) -> bool:
    """Returns whether a folder holds any of the batches."""
    return any((path / name).is_file() for name in (*_BATCHES, _TEST, _META))


def read_cifar(path: pathlib.Path) -> Dataset:
    """Reads CIFAR-10 with its test set.

    Args:
        path: The folder that holds `data_batch_1` to `data_batch_5`, `test_batch` and `batches.meta`.

    Raises:
        ValueError: A file is missing, is not such a pickle, or holds something else than images and labels.
    """
    missing = [name for name in (*_BATCHES, _TEST, _META) if not (path / name).is_file()]
    if missing:
        raise ValueError(f"CIFAR-10's files {', '.join(missing)} are missing.")
    names = _read(path / _META).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{_META} must hold label_names, a list of strings, got {names!r}.")
    batches = [_batch(path / name) for name in _BATCHES]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    test_images, test_labels = _batch(path / _TEST)
    return Dataset("cifar10", images, labels, tuple(names), test_images, test_labels)


def _batch(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 `[N, 32, 32, 3]`, and the labels of a file."""
    content = _read(path)
    data, labels = content.get("data"), content.get("labels")
    pixels = _CHANNELS * _SIDE**2
    data = data.value if isinstance(data, _Array) else None
    if data is None or data.ndim != 2 or data.shape[1] != pixels:
        got = "none" if data is None else f"shape {data.shape}"
        raise ValueError(f"{path.name} must hold data, an array of bytes [N, {pixels}], got {got}.")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{path.name} must hold labels, a list of integers.")
    if len(labels) != len(data):
        raise ValueError(f"{path.name} must hold as many labels as images, got {len(labels)} for {len(data)}.")
    return data.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def _read(path: pathlib.Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
    except Exception as error:  # what a damaged pickle raises has no end
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} must hold a dictionary, got a {type(content).__name__}.")
    return content


class _Type:
    """Stands for a type of NumPy's: that of bytes, for there is no other here."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code != "u1":
            raise pickle.UnpicklingError(f"its arrays must be of bytes (u1), got {code!r}.")

    def __setstate__(self, state: Any) -> None:
        """Takes byte order and the like, which bytes have none of."""


class _Array:
    """Stands for an array of bytes, whose content comes as its state."""

    value: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, _, is_fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data  # what Python 2 wrote comes as text
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Reads plain containers, numbers, text and arrays of bytes."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Returns a stand-in for what an array is made with.

        Raises:
            pickle.UnpicklingError: The pickle asks for anything else.
        """
        match module_name, global_name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return _Array
            case "numpy", "ndarray":
                return None  # only ever handed to _reconstruct
            case "numpy", "dtype":
                return _Type
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is not an array; left unread.")
