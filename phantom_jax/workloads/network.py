"""What a network is to this model: shapes of layers, and tables of published or assumed densities."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from phantom_jax.checks import integer


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """The shape of a layer; `geometry` holds further arguments of `Layer.conv`."""

    name: str
    weights: tuple[int, ...]  # [*kernel, Cin/groups, K], or [Cin, K] for a dense layer
    activations: tuple[int, ...]  # [*spatial, Cin], or [Cin]
    geometry: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DensityTable:
    """Densities of weights and input activations by layer name. Layers that a table does not name are left out."""

    source: str
    assumed_weights: str  # what of the weights' densities is not from the source; empty if nothing is
    assumed_activations: str  # likewise of the activations
    weights: Mapping[str, float]
    activations: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's layers in order and its density tables, of which the first is the default."""

    name: str
    source: str  # of the shapes
    layers: tuple[LayerShape, ...]
    tables: Mapping[str, DensityTable]


def conv_shape(
    name: str,
    side: int,
    kernel: int | tuple[int, int],
    channels: int,
    filters: int,
    stride: int = 1,
    groups: int = 1,
    **more: Any,
) -> LayerShape:
    """Returns a 2-D convolution on a square input of `side` by `side`, by default with padding `"SAME"`."""
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    geometry = {"strides": stride, "padding": "SAME", "feature_group_count": groups, **more}
    return LayerShape(name, (*kernel, channels // groups, filters), (side, side, channels), geometry)


def uniform_table(layers: tuple[LayerShape, ...], weights: float, activations: float, why: str = "") -> DensityTable:
    """Returns an assumed table of one density each, with an input picture without zeros."""
    return DensityTable(
        source="none",
        assumed_weights=f"weights of {weights:g} throughout",
        assumed_activations=f"input activations of {activations:g} throughout{why}, a picture without zeros",
        weights={layer.name: weights for layer in layers},
        activations={layer.name: activations if index else 1.0 for index, layer in enumerate(layers)},
    )


def picture_side(size: Any) -> int:
    """Returns the side of an input picture.

    Raises:
        ValueError: It is not a positive multiple of 32, as networks need that halve it five times.
    """
    side = integer("size", size, minimum=1)
    if side % 32:
        raise ValueError(f"size must be a multiple of 32, got {size!r}.")
    return side
