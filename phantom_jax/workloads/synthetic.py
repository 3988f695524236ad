"""Masks drawn from densities: independent bits, the same for the same seed on every machine (SPEC 9)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from phantom_jax.checks import integer
from phantom_jax.layer import Layer
from phantom_jax.workloads.workload import Workload

_DRAWS = 1 << 22  # 32-bit numbers drawn at a time


@dataclasses.dataclass(frozen=True)
class SyntheticLayer:
    """The shape of a layer and the densities of its masks; `geometry` holds further arguments of `Layer.conv`."""

    name: str
    weights: tuple[int, ...]  # [*kernel, Cin/groups, K], or [Cin, K] for a dense layer
    activations: tuple[int, ...]  # [*spatial, Cin], or [Cin]
    weight_density: float
    activation_density: float
    geometry: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class SyntheticWorkload(Workload):
    """A network of `SyntheticLayer`s whose masks are made when a layer is asked for."""

    seed: int
    notes = ()

    def __init__(self, name: str, layers: Sequence[SyntheticLayer], densities: str, seed: int, images: int) -> None:
        """Describes a workload; draws nothing yet.

        Args:
            name: The network.
            layers: Its layers, in order.
            densities: The source of the densities.
            seed: Seed of the masks, from 0 to 2^64 - 1.
            images: Images B, each with masks of its own.

        Raises:
            ValueError: The seed or the number of images is not valid.
        """
        self.name = name
        self._layers = tuple(layers)
        self._densities = densities
        self.seed = integer("seed", seed, minimum=0)
        if self.seed >= 1 << 64:
            raise ValueError(f"seed must be below 2^64, got {seed}.")
        self._images = integer("images", images, minimum=1)

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        index = range(len(self))[index]
        layer = self._layers[index]
        weights = iid_mask(layer.weights, layer.weight_density, self.seed, 2 * index)
        activations = iid_mask((self._images, *layer.activations), layer.activation_density, self.seed, 2 * index + 1)
        if weights.ndim == 2:
            return Layer.dense(weights, activations, name=layer.name)
        return Layer.conv(weights, activations, **layer.geometry, name=layer.name)

    def provenance(self) -> dict[str, Any]:
        """Returns the source of densities and masks."""
        return {
            "name": self.name,
            "densities": self._densities,
            "masks": "iid, Philox4x64-10 keyed by (seed, 2 * layer + (0 weights, 1 activations))",
            "images": self._images,
        }


def iid_mask(shape: Sequence[int], density: float, seed: int, stream: int) -> Bool[np.ndarray, "..."]:
    """Returns a mask of independent bits that are ones with probability `density`, to within 2^-32.

    A bit is a one where a 32-bit number of the counter-based generator Philox4x64-10, keyed by (seed, stream), lies
    below an integer threshold. Only the raw numbers are used, so the bits do not depend on NumPy's version.

    Args:
        shape: Shape of the mask.
        density: From 0 to 1.
        seed: First word of the key.
        stream: Second word of the key.
    """
    threshold = np.uint64(round(density * (1 << 32)))
    generator = np.random.Philox(key=np.array([seed, stream], np.uint64))
    size = math.prod(shape)
    bits = np.empty(size + size % 2, bool)
    for start in range(0, size, _DRAWS):
        draws = min(_DRAWS, len(bits) - start)
        numbers = generator.random_raw(draws // 2).astype("<u8", copy=False).view("<u4")
        np.less(numbers, threshold, out=bits[start : start + draws])
    return bits[:size].reshape(shape)
