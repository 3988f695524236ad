"""A network with drawn masks."""

from typing import Any

import numpy as np

from phantom_jax.checks import check_seed, integer, one_of
from phantom_jax.layer import Layer
from phantom_jax.random import Draws
from phantom_jax.workloads.masks import beta_densities, check_density, check_pattern, check_spread, n_of_m
from phantom_jax.workloads.network import LayerShape, Network
from phantom_jax.workloads.workload import Workload

KINDS = ("iid", "channel")
_DENSITIES_OF_SLICES = 1 << 32  # streams of the densities of channels and filters, beside those of the bits


class SyntheticWorkload(Workload):
    """The layers of a network, with masks that are drawn when a layer is asked for."""

    seed: int

    def __init__(
        self,
        network: Network,
        seed: int = 0,
        images: int = 1,
        densities: str | None = None,
        weight_density: float | None = None,
        activation_density: float | None = None,
        mask_kind: str = "iid",
        weight_spread: float = 0.23,
        activation_spread: float = 0.77,
        weight_pattern: str | None = None,
    ) -> None:
        """Describes a workload; draws nothing yet.

        The default spreads are the means over eight layers of a real sparse MobileNetV1, of half width at 128x128,
        from the artifact of Sparseloop (MICRO 2022).

        Args:
            network: Shapes and density tables.
            seed: Seed of the masks, from 0 to 2^64 - 1.
            images: Images B, each with activation masks of its own.
            densities: Name of the density table; by default the network's first.
            weight_density: One density for the weights of all layers, in place of the table's.
            activation_density: One density for the input activations of all layers, in place of the table's.
            mask_kind: `"iid"`, independent bits; or `"channel"`, where the density of each filter of the weights and of
                each channel of the activations is drawn from a Beta distribution first.
            weight_spread: For `"channel"`, the standard deviation of filters' densities over
                sqrt(mean * (1 - mean)).
            activation_spread: Likewise of channels of the activations.
            weight_pattern: None, for weights as `masks` says; `"kernel"` keeps or drops the kernel of each pair of
                channel and filter as a whole, `"channel"` that of each input channel over all filters; `"N:M"` keeps
                exactly N of every M consecutive input channels, and goes with no `weight_density`.

        Raises:
            ValueError: An argument is not valid.
        """
        self.name = network.name
        self._network = network
        self.seed = check_seed(seed)
        self._images = integer("images", images, minimum=1)
        self._table_name = one_of(
            "densities", next(iter(network.tables)) if densities is None else densities, tuple(network.tables)
        )
        self._table = network.tables[self._table_name]
        self._kind = one_of("mask_kind", mask_kind, KINDS)
        self._weight_density = None if weight_density is None else check_density("weight_density", weight_density)
        self._activation_density = (
            None if activation_density is None else check_density("activation_density", activation_density)
        )
        self._weight_spread = check_spread("weight_spread", weight_spread)
        self._activation_spread = check_spread("activation_spread", activation_spread)
        self._pattern_name, self._pattern = weight_pattern, check_pattern("weight_pattern", weight_pattern)
        if isinstance(self._pattern, tuple) and weight_density is not None:
            raise ValueError(
                f"weight_density must be null where weight_pattern is {weight_pattern}, got {weight_density!r}."
            )
        # With densities or patterns given for all layers, no table is needed.
        self._reads_weights = self._weight_density is None and not isinstance(self._pattern, tuple)
        self._reads_activations = self._activation_density is None
        needs_table = self._reads_weights or self._reads_activations
        known = self._table.weights.keys() if needs_table else {layer.name for layer in network.layers}
        self._layers = [(index, layer) for index, layer in enumerate(network.layers) if layer.name in known]
        self.names = [layer.name for _, layer in self._layers]
        left_out = [layer.name for layer in network.layers if layer.name not in known]
        self._assumed = [
            *([self._table.assumed_weights] if self._reads_weights and self._table.assumed_weights else []),
            *([self._table.assumed_activations] if self._reads_activations and self._table.assumed_activations else []),
        ]
        self.notes = tuple(self._notes(left_out))

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        number, shape = self._layers[index]
        weights, activations = self._draw_weights(number, shape), self._draw_activations(number, shape)
        if len(shape.weights) == 2:
            return Layer.dense(weights, activations, name=shape.name)
        return Layer.conv(weights, activations, **shape.geometry, name=shape.name)

    def provenance(self) -> dict[str, Any]:
        """Returns the sources of shapes and densities, and how the masks are drawn."""
        return {
            "name": self.name,
            "shapes": self._network.source,
            "densities": self._table_name if self._reads_weights or self._reads_activations else None,
            "densities_source": self._table.source if self._reads_weights or self._reads_activations else None,
            "densities_assumed": self._assumed,
            "weight_density": self._weight_density,
            "activation_density": self._activation_density,
            "mask_kind": self._kind,
            "weight_spread": self._weight_spread if self._kind == "channel" and self._pattern is None else None,
            "activation_spread": self._activation_spread if self._kind == "channel" else None,
            "weight_pattern": self._pattern_name,
            "generator": "Philox4x64-10 keyed by (seed, 2 * layer + (0 weights, 1 activations))",
            "images": self._images,
        }

    def _notes(self, left_out: list[str]) -> list[str]:
        notes = [f"{self.name}: assumed, not published: {'; '.join(self._assumed)}."] if self._assumed else []
        if left_out:
            notes.append(f"{self.name}: the density table {self._table_name} leaves out {', '.join(left_out)}.")
        return notes

    def _draw_weights(self, number: int, shape: LayerShape) -> Any:
        draws = Draws(self.seed, 2 * number)
        channels, filters = shape.weights[-2:]
        if isinstance(self._pattern, tuple):
            return n_of_m(draws, shape.weights, *self._pattern)
        density = self._table.weights[shape.name] if self._weight_density is None else self._weight_density
        if self._pattern is not None:
            groups = shape.geometry.get("feature_group_count", 1)
            by_filter = self._pattern == "kernel"
            kept = draws.bits((channels, filters) if by_filter else (groups, channels), density)
            kept = kept if by_filter else kept.T.repeat(filters // groups, axis=1)  # each channel of each group
            return np.broadcast_to(kept, shape.weights).copy()
        return draws.bits(shape.weights, self._slice_densities(number, 0, density, self._weight_spread, filters))

    def _draw_activations(self, number: int, shape: LayerShape) -> Any:
        density = self._table.activations[shape.name] if self._activation_density is None else self._activation_density
        densities = self._slice_densities(number, 1, density, self._activation_spread, shape.activations[-1])
        return Draws(self.seed, 2 * number + 1).bits((self._images, *shape.activations), densities)

    def _slice_densities(self, number: int, which: int, mean: float, spread: float, count: int) -> Any:
        """Returns the density of all slices of the last axis, or of each."""
        if self._kind == "iid":
            return mean
        return beta_densities(Draws(self.seed, _DENSITIES_OF_SLICES + 2 * number + which), mean, spread, count)
