"""A user's own masks, from an `.npz` file.

Arrays are named `NAME_weights` and `NAME_activations`, one pair per layer; layers run in the order in which their
weights stand in the file. Weights of two axes make a dense layer, of three to five axes a convolution. Activations may
lack the batch axis, except for a dense layer of several positions, where two axes are read as [B, Cin]. Optional arrays
`NAME_strides`, `NAME_padding`, `NAME_input_dilation`, `NAME_kernel_dilation` and `NAME_feature_group_count` set what
`Layer.conv` calls by these names; a name that is nearly one of a layer's is refused. Other arrays are left unread, with
a note.
"""

import collections
import dataclasses
import difflib
import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from phantom_jax.layer import Layer, nonzero
from phantom_jax.workloads.workload import FileWorkload

_GEOMETRY = ("strides", "padding", "input_dilation", "kernel_dilation", "feature_group_count")
# What options are called elsewhere, and what is meant here.
_MEANT = {option: (option,) for option in _GEOMETRY} | {
    "pads": ("padding",),
    "dilation": ("input_dilation", "kernel_dilation"),
    "group": ("feature_group_count",),
}
_SMALL_FLOAT = "'<f1'"  # what float8_e5m2 is called in a file, which NumPy does not read
_WAY_OUT = "Of an array x, save x.astype(np.float32), or its mask, x != 0."
_SEPARATORS = "_.-/: "
_NEAR = 0.8  # how alike two names are, for `difflib`
_MASK = re.compile(rf"(.+?)[{_SEPARATORS}]*(weight|activation)s?", re.IGNORECASE)


def read_npz(path: str | pathlib.Path) -> FileWorkload:
    """Reads a workload from an `.npz` file, by the naming scheme of this module.

    Args:
        path: The file.

    Raises:
        ValueError: The file is missing, damaged or lacks an array, or an array makes no valid layer.
    """
    path, file = _open("path", path)
    with file:
        counts = collections.Counter(file.files)  # an archive may hold several members of one name
        names = [key.removesuffix("_weights") for key in counts if key.endswith("_weights")]
        _check_names(path, names, list(counts))
        _check_unknown(path, names, _unknown(names, counts))
        layers = tuple(_read_layer(path, file, name) for name in names)
    return FileWorkload(path.stem, path, layers, tuple(_notes(path, names, counts)))


def read_arrays(argument: str, path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an `.npz` file by name.

    Args:
        argument: What messages call the file.
        path: The file.

    Raises:
        ValueError: The file is missing or damaged.
    """
    path, file = _open(argument, path)
    with file:
        return {key: _read_array(path, file, key) for key in file.files}


def write_npz(file: BinaryIO, layers: Iterable[Layer]) -> None:
    """Writes layers as an `.npz` file that `read_npz` reads.

    Args:
        file: Open for writing.
        layers: Layers with names.
    """
    arrays: dict[str, Any] = {}
    for layer in layers:
        arrays[f"{layer.name}_weights"] = nonzero(layer.weights)
        arrays[f"{layer.name}_activations"] = nonzero(layer.activations)
        if layer.is_conv:
            arrays |= {f"{layer.name}_{part}": np.asarray(getattr(layer, part)) for part in _GEOMETRY}
    np.savez_compressed(file, **arrays)


def _open(argument: str, path: str | pathlib.Path) -> tuple[pathlib.Path, Any]:
    """Opens an `.npz` file."""
    if not isinstance(path, (str, pathlib.Path)) or not str(path):
        raise ValueError(f"{argument} must name an .npz file, got {path!r}.")
    wanted = f"{argument} must name an .npz file, got {str(path)!r}, which"
    try:
        path = pathlib.Path(path).expanduser()
        problem = None if path.is_file() else "is not a file" if path.exists() else "is missing"
        problem = problem or (None if zipfile.is_zipfile(path) else "is of another format or truncated")
    except (OSError, RuntimeError, ValueError) as error:  # names too long, of no user, with a null character
        raise ValueError(f"{wanted} cannot be opened: {error}") from error
    if problem:
        raise ValueError(f"{wanted} {problem}.")
    try:
        return path, np.load(path, allow_pickle=False)
    except Exception as error:  # what a damaged archive raises has no end
        raise ValueError(f"{wanted} cannot be read: {error}") from error


def _notes(path: pathlib.Path, names: list[str], counts: Mapping[str, int]) -> Iterator[str]:
    """Yields what a user should know about the arrays of a file, given how often each stands there."""
    if repeated := [key for key, count in counts.items() if count > 1]:
        yield f"{path.name}: {', '.join(repeated)} stand there more than once; each is read once, as np.load does"
    if unknown := _unknown(names, counts):
        yield f"{path.name}: ignored {len(unknown)} unknown arrays: {', '.join(unknown)}"


def _check_names(path: pathlib.Path, names: list[str], keys: list[str]) -> None:
    """Checks that every layer has both of its masks."""
    if not names:
        listing = ", ".join(keys) or "nothing"
        raise ValueError(f"{path} must hold arrays NAME_weights and NAME_activations, got {listing}.")
    for name in names:
        if f"{name}_activations" not in keys:
            raise ValueError(f"{path} holds {name}_weights, but lacks the array {name}_activations.")
    for key in keys:
        if key.endswith("_activations") and key.removesuffix("_activations") not in names:
            raise ValueError(f"{path} holds {key}, but lacks the array {key.removesuffix('_activations')}_weights.")


def _unknown(names: list[str], keys: Iterable[str]) -> list[str]:
    """Returns the arrays that are of no layer."""
    known = {f"{name}_{part}" for name in names for part in ("weights", "activations", *_GEOMETRY)}
    return [key for key in keys if key not in known]


def _check_unknown(path: pathlib.Path, names: list[str], unknown: list[str]) -> None:
    """Checks that no unknown array was meant to be a layer's."""
    masks: dict[str, dict[str, str]] = {}
    for key in unknown:
        if near := _near(names, key):
            name, options = near
            raise ValueError(
                f"{path} holds {key}, which is not an option of the layer {name}, but is near "
                f"{', '.join(f'{name}_{option}' for option in options)}. Rename or remove it."
            )
        if key.endswith(_GEOMETRY):
            raise ValueError(
                f"{path} holds {key}, an option, but no layer of that name; the layers are {', '.join(names)}."
            )
        if match := _MASK.fullmatch(key):
            masks.setdefault(match[1], {})[match[2].lower()] = key
    for name, keys in masks.items():
        if len(keys) == 2:
            raise ValueError(
                f"{path} holds {' and '.join(keys.values())}; a layer {name} needs {name}_weights, {name}_activations."
            )


def _near(names: list[str], key: str) -> tuple[str, Sequence[str]] | None:
    """Returns the layer whose name an array's name begins with, and the options that the rest is near."""
    name = max((name for name in names if key.lower().startswith(name.lower())), key=len, default=None)
    if name is None:
        return None
    rest = key[len(name) :].lower().strip(_SEPARATORS)
    for word in (rest, *rest.split("_")):
        for found in difflib.get_close_matches(word, _MEANT, n=1, cutoff=_NEAR):
            return name, _MEANT[found]
    return None


def _read_array(path: pathlib.Path, file: Any, key: str) -> np.ndarray:
    """Reads one array. Types of JAX that NumPy does not know come as bytes without a type: `|V2` is bfloat16 alone."""
    try:
        values = file[key]
    except Exception as error:  # what a damaged archive raises has no end
        way_out = f" {_WAY_OUT}" if _SMALL_FLOAT in str(error) else ""
        raise ValueError(f"{path}: the array {key} cannot be read: {error}{way_out}") from error
    if not isinstance(values, np.ndarray):  # a member that is not in NumPy's format comes as bytes
        raise ValueError(f"{path}: the array {key} cannot be read: it is not in NumPy's format.")
    if values.dtype == "V1":  # of many types; a byte that is -0 in one is -8 or NaN in another
        raise ValueError(
            f"{path}: the array {key} cannot be read: it is of a type that .npz files do not name, such as float8 or "
            f"int4. {_WAY_OUT}"
        )
    return values.view(jnp.bfloat16) if values.dtype == "V2" else values


def _read_layer(path: pathlib.Path, file: Any, name: str) -> Layer:
    """Reads one layer; its masks are kept as booleans."""
    arrays = {}
    for part in ("weights", "activations", *_GEOMETRY):
        if f"{name}_{part}" in file.files:
            arrays[part] = _read_array(path, file, f"{name}_{part}")
    weights, activations = arrays.pop("weights"), arrays.pop("activations")
    geometry = {part: value.tolist() for part, value in arrays.items()}
    try:
        if weights.ndim == 2:
            if geometry:
                raise ValueError(f"{', '.join(geometry)} do not apply to a dense layer (weights of two axes).")
            activations = activations[None] if activations.ndim == 1 else activations
            layer = Layer.dense(weights, activations, name=name)
        else:
            activations = activations[None] if activations.ndim == weights.ndim - 1 else activations
            layer = Layer.conv(weights, activations, **geometry, name=name)
    except ValueError as error:
        raise ValueError(f"{path}, layer {name}: {error}") from error
    return dataclasses.replace(layer, weights=nonzero(weights), activations=nonzero(activations))
