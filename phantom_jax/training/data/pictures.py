"""A data set in folders of pictures: one folder for each class, or `train/` and `test/` (or `val/`) of such folders."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from phantom_jax.training.data.dataset import Dataset
from phantom_jax.training.data.extra import import_extra

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_PARTS = ("train", "test", "val")
_Paths = Mapping[str, Sequence[pathlib.Path]]  # pictures of each class


def read_pictures(path: pathlib.Path, folders: Sequence[pathlib.Path], size: int | None) -> Dataset:
    """Reads a data set of pictures, which become gray if all of them are, else RGB.

    A picture is turned as its EXIF data say, and what is transparent in it becomes black.

    Args:
        path: The data set's folder.
        folders: The folders in it, in order.
        size: Side of the squares that pictures are resized to, or None if they are of one size.

    Raises:
        ValueError: There is a folder too many or without pictures, a picture cannot be read, or sizes differ.
        ImportError: Pillow is not installed.
    """
    parts = {folder.name: folder for folder in folders}
    ignored: list[pathlib.Path] = []
    if "train" not in parts or not _folders(parts["train"]):
        classes, tests, notes = _classes(folders, ignored), {}, ()
    else:
        others = [name for name in parts if name not in _PARTS]
        if others:
            raise ValueError(f"beside train/ expected test/ or val/, got {others[0]}/.")
        listed = {name: _classes(_folders(folder), ignored) for name, folder in parts.items()}
        classes = listed["train"]
        for name, part in listed.items():
            unknown = [label for label in part if label not in classes]
            if unknown:
                raise ValueError(f"{name}/ must hold classes of train/, got {unknown[0]}.")
        tests, notes = listed.get("test", listed.get("val", {})), ()
        if "test" in listed and "val" in listed:
            classes = {label: [*paths, *listed["val"].get(label, ())] for label, paths in classes.items()}
            notes = ("val/ joins train/: validation images are drawn from both, since test/ is the test set",)
    if ignored:
        notes += (f"ignored {len(ignored)} files that are not pictures, the first of them {ignored[0]}",)
    arrays = _decode(path, [*_flat(classes), *_flat(tests)], size)
    labels = _labels(classes, list(classes))
    count = len(labels)
    test = (arrays[count:], _labels(tests, list(classes))) if tests else (None, None)
    return Dataset(path.resolve().name, arrays[:count], labels, tuple(classes), *test, notes=notes)


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _classes(folders: Sequence[pathlib.Path], ignored: list[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Returns the pictures of each class; other files are appended to `ignored`."""
    classes = {}
    for folder in folders:
        entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
        inner = [entry.name for entry in entries if entry.is_dir()]
        if inner:
            raise ValueError(
                f"the folder {folder} of a class must hold pictures, got the folder {inner[0]}. (Parts of a data set "
                f"are named {', '.join(_PARTS)}.)"
            )
        classes[folder.name] = [entry for entry in entries if entry.suffix.lower() in _SUFFIXES]
        if not classes[folder.name]:
            raise ValueError(f"the folder {folder} of a class holds no pictures ({', '.join(_SUFFIXES)}).")
        ignored += [entry for entry in entries if entry.suffix.lower() not in _SUFFIXES]
    return classes


def _flat(classes: _Paths) -> list[pathlib.Path]:
    return [path for paths in classes.values() for path in paths]


def _labels(classes: _Paths, names: Sequence[str]) -> np.ndarray:
    """Returns the labels of `_flat(classes)`."""
    return np.repeat([names.index(name) for name in classes], [len(paths) for paths in classes.values()])


def _decode(root: pathlib.Path, paths: Sequence[pathlib.Path], size: int | None) -> np.ndarray:
    """Returns pictures as uint8 `[N, H, W, C]`, with C = 1 if all are gray, else 3."""
    pictures = []
    for path in paths:
        try:
            picture = _picture(path, size)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # what a damaged picture raises has no end
            raise ValueError(f"the picture {path} cannot be read: {error}") from error
        if pictures and picture.shape[:2] != pictures[0].shape[:2]:
            (height, width), (first_height, first_width) = picture.shape[:2], pictures[0].shape[:2]
            raise ValueError(
                f"pictures must be of one size, got {first_width}x{first_height} ({paths[0].relative_to(root)}) and "
                f"{width}x{height} ({path.relative_to(root)}); size= resizes them."
            )
        pictures.append(picture)
    channels = max(picture.shape[2] for picture in pictures)
    return np.stack([np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures])


def _picture(path: pathlib.Path, size: int | None) -> np.ndarray:
    """Returns a picture as uint8 `[H, W, C]`, with C = 1 if it is gray, else 3."""
    image_module = import_extra("PIL.Image", "Pillow")
    with image_module.open(path) as file:
        if file.mode[0] in "IF":
            raise ValueError(f"it must have 8 bits per value, got Pillow's mode {file.mode}.")
        mode = "L" if file.mode in ("1", "L", "LA") else "RGB"
        image = import_extra("PIL.ImageOps", "Pillow").exif_transpose(file)
        if image.has_transparency_data:
            black = image_module.new("RGBA", image.size, (0, 0, 0, 255))
            image = image_module.alpha_composite(black, image.convert("RGBA"))
        image = image.convert(mode)
        if size is not None:
            image = image.resize((size, size), image_module.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]
