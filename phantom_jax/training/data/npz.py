"""A data set in one or two `.npz` files.

One file has the arrays `images` and `labels`, and may have `test_images`, `test_labels` and `classes`, the names of
the classes. Of two files, one is named `train.npz` and the other `test.npz` or `val.npz`, or ends in these names; each
has its own `images` and `labels`.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from phantom_jax.training.data.dataset import Dataset

_NEEDED = ("images", "labels")
_OPTIONAL = ("classes", "test_images", "test_labels")


def read_npz(paths: Sequence[pathlib.Path]) -> Dataset:
    """Reads a data set from its files.

    Args:
        paths: One or two existing files.

    Raises:
        ValueError: A file is damaged, lacks an array or holds one that is not valid, or there are other files than
            those of a data set.
    """
    if len(paths) == 1:
        (path,) = paths
        name = path.stem
        arrays, notes = _arrays(path, (*_NEEDED, *_OPTIONAL))
    else:
        path, test_path = _roles(paths)
        name = path.resolve().parent.name
        arrays, notes = _arrays(path, (*_NEEDED, "classes"))
        test, test_notes = _arrays(test_path, _NEEDED)
        arrays |= {f"test_{part}": value for part, value in test.items()}
        notes += test_notes
    return Dataset(name, **arrays, notes=notes)  # pyright: ignore[reportArgumentType] - Dataset checks them


def _roles(paths: Sequence[pathlib.Path]) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns which of the files is for training and which for the test."""
    train = [path for path in paths if path.stem.endswith("train")]
    test = [path for path in paths if path.stem.endswith(("test", "val"))]
    if len(paths) != 2 or len(train) != 1 or len(test) != 1:
        raise ValueError(
            "expected one .npz file, or two whose names end in train.npz and in test.npz or val.npz, got "
            f"{', '.join(path.name for path in paths)}."
        )
    return train[0], test[0]


def _arrays(path: pathlib.Path, known: Sequence[str]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the known arrays of a file, and a note if it holds others."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array in NumPy's .npy format")
    except Exception as error:  # what a damaged archive raises has no end
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    with file:
        for name in _NEEDED:
            if name not in file.files:
                listing = ", ".join(file.files) or "nothing"
                raise ValueError(f"{path.name} must hold the arrays images and labels, got {listing}.")
        arrays = {}
        for name in known:
            if name in file.files:
                try:
                    arrays[name] = file[name]
                except Exception as error:
                    raise ValueError(f"{path.name}: the array {name} cannot be read: {error}") from error
        unknown = [name for name in file.files if name not in known]
    notes = (f"{path.name}: ignored {len(unknown)} other arrays: {', '.join(unknown)}",) if unknown else ()
    return arrays, notes
