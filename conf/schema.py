"""Schemas of the configuration groups.

Types that Hydra would bend (1.5 to the integer 1) are left to the library, which refuses them by name.
"""

import dataclasses
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclasses.dataclass
class ArchConfig:
    """Parameters of `phantom_jax.Phantom2D`, which validates them."""

    rows: Any = MISSING
    cols: Any = MISSING
    pes: Any = MISSING
    threads: Any = MISSING
    lookahead: Any = MISSING
    selector: str = MISSING
    intra_balance: Any = MISSING
    inter_balance: Any = MISSING


@dataclasses.dataclass
class WorkloadConfig:
    """What every workload has."""

    name: str = MISSING


@dataclasses.dataclass
class SyntheticConfig(WorkloadConfig):
    """A network with masks drawn from published densities."""

    images: Any = 1  # images per layer, each with activation masks of its own


@dataclasses.dataclass
class NpzConfig(WorkloadConfig):
    """A user's own masks."""

    path: str = MISSING  # the file; relative to where the command was typed


@dataclasses.dataclass
class SimulateConfig:
    """The main job."""

    arch: ArchConfig = dataclasses.field(default_factory=ArchConfig)
    workload: WorkloadConfig = dataclasses.field(default_factory=WorkloadConfig)
    seed: Any = 0  # of drawn masks


def register() -> None:
    """Makes the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(group="schema", name="simulate", node=SimulateConfig)
    store.store(group="schema", name="arch", node=ArchConfig)
    store.store(group="schema", name="synthetic", node=SyntheticConfig)
    store.store(group="schema", name="npz", node=NpzConfig)
