"""Which weights to keep: methods score them, and those with the highest scores over all layers stay."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from phantom_jax.checks import integer
from phantom_jax.layer import Layer
from phantom_jax.sparsity.masked import Masked

Scores = dict[str, np.ndarray]  # by layer, of the shape of its weights


class Method(Protocol):
    """A way to choose weights."""

    @property
    def learns(self) -> bool:
        """Whether it learns keep probabilities, which are its scores."""
        ...

    @property
    def straight_through(self) -> bool:
        """Whether gradients reach the weights that it takes."""
        ...

    @property
    def is_fixed(self) -> bool:
        """Whether how many weights are left is its own matter: those of a score above 0."""
        ...

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns the score of each weight.

        Args:
            model: The network.
            layers: Its layers (`Masked.trace`) with activations of a few images.
        """
        ...


@dataclasses.dataclass(frozen=True)
class GlobalMagnitude:
    """Keeps the weights of largest magnitude over all layers (Han et al., arXiv:1506.02626)."""

    learns = straight_through = is_fixed = False

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns magnitudes."""
        return _magnitudes(model)


@dataclasses.dataclass(frozen=True)
class UniformMagnitude:
    """Keeps the weights of largest magnitude in each layer, the same share of all."""

    learns = straight_through = is_fixed = False

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns the share of a layer's weights that are no larger."""
        ranked = {}
        for name, values in _magnitudes(model).items():
            order = np.argsort(values, axis=None, kind="stable")
            ranks = np.empty(values.size)
            ranks[order] = np.arange(1, values.size + 1) / values.size
            ranked[name] = ranks.reshape(values.shape)
        return ranked


@dataclasses.dataclass(frozen=True)
class MacAwareMagnitude:
    """Keeps the weights that are worth their MACs: thresholds on magnitudes equalize what a saved MAC costs.

    A weight's score is its square over the number of effectual MACs that it takes part in, counted on the activations
    of a few images for each channel and kernel position. All layers have one threshold, so at the margin a MAC
    saved costs as much squared magnitude in each of them. This model's choice.
    """

    learns = straight_through = is_fixed = False

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns squared magnitudes per effectual MAC; a weight that meets no activation is worth nothing."""
        squared = {name: values.astype(np.float64) ** 2 for name, values in _magnitudes(model).items()}
        macs = {str(layer.name): macs_per_weight(layer) for layer in layers}
        return {
            name: np.where(macs[name] > 0, values / np.maximum(macs[name], 1e-9), 0) for name, values in squared.items()
        }


@dataclasses.dataclass(frozen=True)
class NM:
    """Keeps n of each m weights along a filter's input channels (N:M sparsity; Zhou et al., arXiv:2102.04010).

    As there, gradients reach all weights, and training draws those that are taken towards zero. Layers whose input
    channels m does not divide stay dense.
    """

    n: int
    m: int

    learns = False
    straight_through = is_fixed = True

    def __post_init__(self) -> None:
        """Checks n and m.

        Raises:
            ValueError: They are not integers with 1 <= n < m.
        """
        integer("sparsity.m", self.m, minimum=1)
        if integer("sparsity.n", self.n, minimum=1) >= self.m:
            raise ValueError(f"sparsity.n must be less than sparsity.m ({self.m}), got {self.n}.")

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns 1 for the weights to keep, else 0."""
        kept = {}
        for name, values in _magnitudes(model).items():
            *kernel, channels, filters = values.shape
            if channels % self.m:
                kept[name] = np.ones(values.shape)
                continue
            groups = values.reshape(*kernel, channels // self.m, self.m, filters)
            order = np.argsort(np.argsort(-groups, axis=-2, kind="stable"), axis=-2)
            kept[name] = (order < self.n).astype(float).reshape(values.shape)
        return kept


@dataclasses.dataclass(frozen=True)
class CycleAware:
    """Learns which weights to keep, with the cycles that are expected of them as a penalty (`cycle_penalty`)."""

    learns = True
    straight_through = is_fixed = False

    def logits(self, model: Masked) -> Scores:
        """Returns where learning starts: larger weights are likelier to stay, by their rank within a layer."""
        ranks = UniformMagnitude().scores(model, ())
        return {name: _SPREAD * (2 * values - 1) + _FIRST for name, values in ranks.items()}

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns the logits of keep probabilities."""
        return {name: np.asarray(keep.get_value()) for name, keep in model.keep.items()}


_SPREAD, _FIRST = 2.0, 2.0  # of first logits: probabilities from 0.5 to 0.98


def macs_per_weight(layer: Layer) -> np.ndarray:
    """Returns how many effectual MACs each weight of a layer takes part in, per image, if it is not zero."""
    seen = jnp.asarray(layer.activations != 0, jnp.float32)
    ones = jnp.ones(layer.weights.shape, jnp.float32)
    if not layer.is_conv:
        counts = seen.reshape(-1, seen.shape[-1]).sum(0)[:, None] * ones
    else:
        spatial = "DHW"[-len(layer.strides) :]
        numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")

        def outputs(weights: jax.Array) -> jax.Array:
            return lax.conv_general_dilated(
                seen,
                weights,
                layer.strides,
                layer.padding,
                layer.input_dilation,
                layer.kernel_dilation,
                numbers,
                layer.feature_group_count,
            ).sum()

        counts = jax.grad(outputs)(ones)
    return np.asarray(counts, np.float64) / layer.batch


def _magnitudes(model: Masked) -> Scores:
    return {name: np.abs(np.asarray(values)) for name, values in model.weights().items()}


def keep_best(scores: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Returns masks with the weights of the highest scores over all layers; of equal ones, the first.

    Args:
        scores: By layer.
        count: Weights to keep.
    """
    flat = np.concatenate([values.ravel() for values in scores.values()])
    kept = np.zeros(flat.size, bool)
    kept[np.argsort(-flat, kind="stable")[:count]] = True
    ends = np.cumsum([values.size for values in scores.values()])
    parts = np.split(kept, ends[:-1])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}
