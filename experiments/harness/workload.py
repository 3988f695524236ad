"""Configuration -> workload, for all jobs."""

from typing import Any

from omegaconf import DictConfig

from experiments.harness import command
from phantom_jax.checks import one_of
from phantom_jax.workloads import NETWORKS, SyntheticWorkload, Workload, read_npz

_SHAPE_OPTIONS = ("size", "width")


def load_workload(config: DictConfig) -> Workload:
    """Returns the workload that `config.workload` describes, with masks of `config.seed` if they are drawn.

    Raises:
        ValueError: The workload is unknown, or one of its options is not valid.
    """
    options = command.options(config, "workload")
    name = one_of("workload.name", options.pop("name"), ("npz", *NETWORKS))
    if name == "npz":
        return read_npz(**options)
    shape = {option: options.pop(option) for option in _SHAPE_OPTIONS if option in options}
    return SyntheticWorkload(NETWORKS[name](**shape), seed=config.seed, **options)


def layer_name(size: int, key: str, value: Any) -> str:
    """Returns `NETWORK/LAYER` if there is such a layer.

    Args:
        size: Side of the input picture.
        key: Name of the option.
        value: Its value.

    Raises:
        ValueError: There is none.
    """
    network, _, layer = str(value).partition("/")
    if network not in NETWORKS:
        raise ValueError(f"{key} must be NETWORK/LAYER, of a network of {', '.join(NETWORKS)}; got {value!r}.")
    one_of(f"{key}, after {network}/,", layer, tuple(shape.name for shape in NETWORKS[network](size).layers))
    return value
