"""Which weights to keep: methods score them, and those with the highest scores over all layers stay."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from phantom_jax.checks import integer
from phantom_jax.layer import Layer
from phantom_jax.promotion import promotion
from phantom_jax.sparsity.functional import first_logits
from phantom_jax.sparsity.masked import Masked
from phantom_jax.sparsity.named import arrays_by_name, layers_by_name, shapes_of
from phantom_jax.sparsity.penalty import Cost

Scores = dict[str, np.ndarray]  # by layer, of the shape of its weights


class Method(Protocol):
    """A way to choose weights: by scores that it computes, or, as `CycleAware`, by scores that it learns."""

    @property
    def is_fixed(self) -> bool:
        """Whether it decides how many weights stay, those of a score above 0; gradients then reach all weights."""
        ...

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns the score of each weight.

        Args:
            model: The network.
            layers: Its layers (`Masked.trace`) with activations of a few images.

        Raises:
            ValueError: `model` is not a masked network, or `layers`, where activations matter, are not its own.
        """
        ...


@dataclasses.dataclass(frozen=True)
class GlobalMagnitude:
    """Keeps the weights of largest magnitude over all layers (Han et al., arXiv:1506.02626)."""

    is_fixed = False

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns magnitudes."""
        return _magnitudes(model)


@dataclasses.dataclass(frozen=True)
class UniformMagnitude:
    """Keeps the weights of largest magnitude in each layer, the same share of all."""

    is_fixed = False

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns ranks by magnitude within a layer, as a share of its weights; of equal ones, the first is higher."""
        return _ranks(model)


@dataclasses.dataclass(frozen=True)
class MacAwareMagnitude:
    """Keeps the weights that are worth their MACs: thresholds on magnitudes equalize what a saved MAC costs.

    A weight's score is its square over the number of effectual MACs that it takes part in, counted on the activations
    of a few images for each channel and kernel position. All layers have one threshold, so at the margin a MAC
    saved costs as much squared magnitude in each of them. This model's choice.
    """

    is_fixed = False

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns squared magnitudes per effectual MAC; a weight that meets no activation is worth nothing."""
        magnitudes, named = _magnitudes(model), layers_by_name(layers)
        shapes = {name: values.shape for name, values in magnitudes.items()}
        if shapes_of(named) != shapes:
            raise ValueError(f"layers must be those of the model ({', '.join(shapes)}), got {', '.join(named)}.")
        scores = {}
        for name, values in magnitudes.items():
            macs = macs_per_weight(named[name])
            scores[name] = np.divide(values**2, macs, out=np.zeros(values.shape), where=macs > 0)
        return scores


@dataclasses.dataclass(frozen=True)
class NM:
    """Keeps n of each m weights along a filter's input channels (N:M sparsity; Zhou et al., arXiv:2102.04010).

    As there, gradients reach all weights, and training draws those that are taken towards zero. Layers whose input
    channels m does not divide stay dense.
    """

    n: int
    m: int

    is_fixed = True

    def __post_init__(self) -> None:
        """Checks n and m.

        Raises:
            ValueError: They are not integers with 1 <= n < m.
        """
        integer("m", self.m, minimum=1)
        if integer("n", self.n, minimum=1) >= self.m:
            raise ValueError(f"n must be less than m ({self.m}), got {self.n}.")

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
    """Learns which weights to keep, with the cycles that are expected of them as a penalty (`cycle_penalty`).

    Attributes:
        cost: What the penalty's gradient is of; the expected cycles by default.
        recalibrates: Whether the proxy is calibrated again as activations change.
    """

    cost: Cost | None = None
    recalibrates: bool = True

    is_fixed = False

    def logits(self, model: Masked) -> Scores:
        """Returns where learning starts, see `first_logits`."""
        _check_model(model)
        return first_logits(model.weights())

    def scores(self, model: Masked, layers: Sequence[Layer]) -> Scores:
        """Returns the logits of keep probabilities, which the model must have (`Masked.learn`)."""
        _check_model(model)
        if not model.keep:
            raise ValueError("model must have keep probabilities to score by (Masked.learn), got one without.")
        return {name: np.asarray(keep.get_value()) for name, keep in model.keep.items()}


@promotion()
def macs_per_weight(layer: Layer) -> np.ndarray:
    """Returns how many effectual MACs each weight of a layer takes part in if it is not zero, as a mean over images.

    Args:
        layer: With the activations of a few images; what its weights hold does not matter.

    Raises:
        ValueError: `layer` is not a Layer, or holds traced arrays.
    """
    if not isinstance(layer, Layer):
        raise ValueError(f"layer must be a Layer, got {layer!r}.")
    if isinstance(layer.activations, Tracer):
        raise ValueError("layer must hold concrete activations, got traced ones: call macs_per_weight outside of jit.")
    seen = jnp.asarray(layer.activations != 0, jnp.float32)
    if not layer.is_conv:
        counts = seen.reshape(-1, seen.shape[-1]).sum(0)[:, None]
    else:
        spatial = "DHW"[-len(layer.strides) :]

        def outputs(weights: jax.Array) -> jax.Array:
            return lax.conv_general_dilated(
                seen,
                weights,
                layer.strides,
                layer.padding,
                layer.input_dilation,
                layer.kernel_dilation,
                (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
                layer.feature_group_count,
            ).sum()

        # The filters of a group meet the same activations, so one stands for them.
        counts = jax.grad(outputs)(jnp.ones((*layer.weights.shape[:-1], layer.feature_group_count), jnp.float32))
    repeats = layer.filters // counts.shape[-1]
    return np.repeat(np.asarray(counts, np.float64) / layer.batch, repeats, axis=-1)


def keep_best(scores: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Returns masks with the weights of the highest scores over all layers; of equal ones, the first.

    Args:
        scores: By layer.
        count: Weights to keep.

    Raises:
        ValueError: `scores` hold no layer, something that is not an array of numbers, or NaN, or `count` is not an
            integer from 0 to the number of weights.
    """
    places = places_by_score(scores)
    size = sum(values.size for values in places.values())
    if integer("count", count, minimum=0) > size:
        raise ValueError(f"count must be at most the {size} weights that have scores, got {count}.")
    return {name: values < count for name, values in places.items()}


def places_by_score(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the place of each weight over all layers, from 0 for the highest score; of equal ones, the first leads.

    Raises:
        ValueError: See `keep_best`.
    """
    arrays = {name: np.asarray(values, np.float64) for name, values in arrays_by_name("scores", scores).items()}
    flat = np.concatenate([values.ravel() for values in arrays.values()])
    places = np.empty(flat.size, np.int64)
    places[np.argsort(-flat, kind="stable")] = np.arange(flat.size)
    parts = np.split(places, np.cumsum([values.size for values in arrays.values()])[:-1])
    return {name: part.reshape(arrays[name].shape) for name, part in zip(arrays, parts, strict=True)}


def _check_model(model: Any) -> None:
    if not isinstance(model, Masked):
        raise ValueError(f"model must be a Masked network, got {type(model).__name__}.")


def _magnitudes(model: Masked) -> Scores:
    _check_model(model)
    return {name: np.abs(np.asarray(values, np.float64)) for name, values in model.weights().items()}


def _ranks(model: Masked) -> Scores:
    """Returns ranks by magnitude within each layer, above 0 and up to 1, which the largest has."""
    ranks = {}
    for name, values in _magnitudes(model).items():
        places = places_by_score({name: values})[name]
        ranks[name] = 1 - places / places.size
    return ranks
