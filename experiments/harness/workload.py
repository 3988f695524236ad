"""Options of the group `workload` -> a workload."""

import inspect
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from experiments.harness.options import group_of, make, named
from phantom_jax import from_onnx
from phantom_jax.checks import one_of
from phantom_jax.workloads import NETWORKS, FileWorkload, SyntheticWorkload, Workload, read_arrays, read_npz


def read_onnx(path: str, inputs: str) -> FileWorkload:
    """Reads a workload from an ONNX file: the layers that the network runs on inputs.

    Args:
        path: The file.
        inputs: An `.npz` file with an array for each input of the network, by name.

    Raises:
        ValueError: A file is missing or damaged, the inputs are not the network's, or it has no layer.
    """
    arrays = read_arrays("inputs", inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what is skipped, which the notes name
        traced = from_onnx(path, arrays)
    file = pathlib.Path(path).expanduser()
    if not traced.layers:
        raise ValueError(f"path must name a network with layers, got {path!r}, which has none.")
    notes = tuple(f"{file.name}: {skipped}" for skipped in traced.skipped)
    return FileWorkload(file.stem, file, traced.layers, notes, pathlib.Path(inputs).expanduser())


_FILES: dict[str, Callable[..., FileWorkload]] = {"npz": read_npz, "onnx": read_onnx}


def load_workload(options: Mapping[str, Any]) -> Workload:
    """Returns the workload of a command's options, with masks of `seed` if they are drawn.

    Raises:
        ValueError: The workload is unknown, or one of its options is not valid.
    """
    values = group_of(options, "workload")
    name = one_of("workload.name", values.pop("name", None), (*_FILES, *NETWORKS))
    if name in _FILES:
        return make(_FILES[name], values, "workload")
    of_network = inspect.signature(NETWORKS[name]).parameters
    network = make(
        NETWORKS[name], {option: values.pop(option) for option in of_network if option in values}, "workload"
    )
    return make(SyntheticWorkload, values, "workload", network=network, seed=options["seed"])


def is_file(network: str) -> bool:
    """Returns whether the name of a network is that of a file, as `load_file` takes it."""
    return pathlib.Path(network).suffix[1:] in _FILES


def load_file(key: str, path: str, inputs: str | None) -> FileWorkload:
    """Returns the workload of an `.npz` or `.onnx` file.

    Args:
        key: Name of the option that names the file.
        path: The file.
        inputs: The option `inputs`, which ONNX files need; see `read_onnx`.

    Raises:
        ValueError: As in `read_npz` and `read_onnx`.
    """
    with named({"path": key}):
        if pathlib.Path(path).suffix == ".npz":
            return read_npz(path)
        if inputs is None:
            raise ValueError(f"inputs must name an .npz file with an array for each input of {path}, got null.")
        return read_onnx(path, inputs)


def layer_name(size: int, key: str, value: Any) -> str:
    """Returns `NETWORK/LAYER` if there is such a layer.

    Args:
        size: Side of the input picture.
        key: Name of the option.
        value: Its value.

    Raises:
        ValueError: There is no such layer.
    """
    network, _, layer = str(value).partition("/")
    if network not in NETWORKS:
        raise ValueError(f"{key} must be NETWORK/LAYER, of a network of {', '.join(NETWORKS)}; got {value!r}.")
    one_of(f"{key}, after {network}/,", layer, tuple(shape.name for shape in NETWORKS[network](size).layers))
    return value
