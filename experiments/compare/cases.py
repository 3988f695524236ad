"""What is counted: one frozen dataclass per kind of case, of plain values alone."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar


@dataclasses.dataclass(frozen=True)
class LayerCycles:
    """What one layer takes on one design, over all images."""

    name: str
    cycles: int
    dense_macs: int
    effectual_macs: int
    supported: bool  # by the published design
    stack: Mapping[str, int]  # slots


@dataclasses.dataclass(frozen=True)
class NetworkRun:
    """A network on a design."""

    case: ClassVar[str] = "run"
    identity: ClassVar[tuple[str, ...]] = ("network", "mask_kind", "seed", "design", "size")

    network: str  # with its density table, as "vgg16/han", or a file
    mask_kind: str  # "iid" or "channel"; of a file, "file" and what its digest begins with
    seed: int | None  # None for a file
    design: str
    size: str  # "published", or "equal" to the multipliers of Phantom-2D
    multipliers: int  # that the cycles are for
    array_multipliers: int
    layers: tuple[LayerCycles, ...]


@dataclasses.dataclass(frozen=True)
class MapPoint:
    """A layer on Phantom-2D and its rivals, of as many multipliers, at one density of weights and of activations."""

    case: ClassVar[str] = "map"
    identity: ClassVar[tuple[str, ...]] = ("layer", "seed", "weight_density", "activation_density")

    layer: str
    seed: int
    weight_density: float
    activation_density: float
    cycles: Mapping[str, int]  # by design
