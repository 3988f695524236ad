"""Configuration -> workload, for all jobs."""

from omegaconf import DictConfig

from experiments import command
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
