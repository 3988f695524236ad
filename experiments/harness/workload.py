"""Options of the group `workload` -> a workload."""

import inspect
from collections.abc import Mapping
from typing import Any

from experiments.harness.options import make
from phantom_jax.checks import one_of
from phantom_jax.workloads import NETWORKS, SyntheticWorkload, Workload, read_npz


def load_workload(options: Mapping[str, Any]) -> Workload:
    """Returns the workload of a command's options, with masks of `seed` if they are drawn.

    Raises:
        ValueError: The workload is unknown, or one of its options is not valid.
    """
    values = dict(options["workload"])
    name = one_of("workload.name", values.pop("name", None), ("npz", *NETWORKS))
    if name == "npz":
        return make(read_npz, values, "workload")
    of_network = inspect.signature(NETWORKS[name]).parameters
    network = make(
        NETWORKS[name], {option: values.pop(option) for option in of_network if option in values}, "workload"
    )
    return make(SyntheticWorkload, values, "workload", network=network, seed=options["seed"])


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
