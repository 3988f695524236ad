"""Masks and keep probabilities for networks that are functions of a pytree of parameters."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phantom_jax.layer import Layer
from phantom_jax.promotion import promotion
from phantom_jax.sparsity.named import arrays_by_name
from phantom_jax.tracing import trace

_TEMPERATURE = 0.5  # of the relaxed bit that gradients go through
_LOGIT_RANGE = -4.0, 6.0  # of first logits: probabilities from 0.02 to 0.998
_SMALLEST = 1e-30  # magnitude that has a logarithm


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a layer's weights are among parameters, and how the layer has them."""

    path: tuple[Any, ...]
    order: tuple[int, ...]  # of the parameter's axes
    shape: tuple[int, ...]  # of the layer's weights


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The weights of a function's layers, among its parameters; works on traced parameters too.

    Weights have the names and the layout of the layers that `phantom_jax.trace` finds, whatever layout the parameters
    have (`[out, in]`, OIHW, several axes of filters). Make one with `LayerWeights.find`.
    """

    fn: Callable[..., Any]
    places: Mapping[str, _Place]

    @classmethod
    def find(cls, fn: Callable[..., Any], params: Any, *args: Any, leave_out: Collection[str] = ()) -> "LayerWeights":
        """Finds the weights of the layers that `fn(params, *args)` runs.

        Args:
            fn: A function of parameters and of what else it takes, such as images.
            params: A pytree of arrays.
            *args: What else `fn` takes; a few images are enough.
            leave_out: Names of layers that stay as they are.

        Raises:
            ValueError: `fn` runs no layer, `leave_out` names none of them, or a layer's weights are not one array of
                `params` (its axes in any order) that no other layer has.
        """
        names = [str(layer.name) for layer in _quietly(fn, params, args)]
        for name in leave_out:
            if name not in names:
                raise ValueError(f"leave_out must name layers of fn ({', '.join(names)}), got {name!r}.")
        # Random bits in place of the weights show where each of them goes.
        rng = np.random.default_rng(0)
        probe = jax.tree.map(lambda leaf: _random_half(rng, leaf) if jnp.ndim(leaf) > 1 else leaf, params)
        traced = _quietly(fn, probe, args)
        arrays = dict(jax.tree_util.tree_leaves_with_path(probe))
        places: dict[str, _Place] = {}
        for layer, source in zip(traced, traced.sources, strict=True):
            name = str(layer.name)
            if name in leave_out:
                continue
            path = source[1:] if source is not None and source[0].idx == 1 else None
            place = None if path is None else _place(path, np.asarray(arrays[path]) != 0, layer.weights)
            if place is None:
                raise ValueError(
                    f"params must hold the weights of {name} as one array, whose zeros are those of the layer; "
                    "leave_out takes the names of layers without one."
                )
            taken = [other for other, known in places.items() if known.path == place.path]
            if taken:
                raise ValueError(f"fn must not use weights twice; {name} has those of {taken[0]}.")
            places[name] = place
        if not places:
            raise ValueError("fn must run a convolution or dense product whose weights are in params; none was found.")
        return cls(fn, places)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they run."""
        return tuple(self.places)

    def layers(self, params: Any, *args: Any) -> list[Layer]:
        """Returns the layers that `fn(params, *args)` runs, without those left out, for `simulate` or `calibrate`."""
        return [layer for layer in _quietly(self.fn, params, args) if layer.name in self.places]

    def of(self, params: Any) -> dict[str, jax.Array]:
        """Returns the weights of each layer.

        Raises:
            ValueError: `params` lack them.
        """
        leaves = dict(jax.tree_util.tree_leaves_with_path(params))
        for name, place in self.places.items():
            if place.path not in leaves or jnp.size(leaves[place.path]) != math.prod(place.shape):
                where = jax.tree_util.keystr(place.path)
                raise ValueError(f"params must hold the weights of {name} at {where}, of the shape that was found.")
        return {
            name: jnp.asarray(leaves[place.path]).transpose(place.order).reshape(place.shape)
            for name, place in self.places.items()
        }

    def put(self, params: Any, weights: Mapping[str, Any]) -> Any:
        """Returns parameters with other weights in the layers; all else is as it is.

        Raises:
            ValueError: `weights` lack a layer, hold an unknown one, or an array is of another shape or holds NaN.
        """
        arrays = arrays_by_name("weights", weights, {name: place.shape for name, place in self.places.items()})
        names = {place.path: name for name, place in self.places.items()}

        def replaced(path: Any, leaf: Any) -> Any:
            if path not in names:
                return leaf
            order = self.places[names[path]].order
            moved = jnp.asarray(arrays[names[path]], leaf.dtype).reshape([leaf.shape[axis] for axis in order])
            return moved.transpose(np.argsort(order))

        return jax.tree_util.tree_map_with_path(replaced, params)

    def masked(self, params: Any, masks: Mapping[str, Any]) -> Any:
        """Returns parameters with the weights of each layer times its mask, or its keep probabilities.

        Raises:
            ValueError: As in `put`.
        """
        weights = self.of(params)
        arrays = arrays_by_name("masks", masks, {name: place.shape for name, place in self.places.items()})
        with promotion():
            return self.put(params, {name: weights[name] * arrays[name] for name in weights})


def first_logits(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns where the learning of keep probabilities starts: larger weights are likelier to stay.

    A logit is 1 + 2 ln(|w| / median over all layers), within -4 and 6, so the odds of a weight grow with its square.

    Args:
        weights: By layer.

    Raises:
        ValueError: `weights` are not a mapping of arrays, or one holds NaN.
    """
    arrays = arrays_by_name("weights", weights)
    logs = {
        name: np.log(np.maximum(np.abs(np.asarray(array, np.float64)), _SMALLEST)) for name, array in arrays.items()
    }
    median = np.median(np.concatenate([values.ravel() for values in logs.values()]))
    return {name: np.clip(1 + 2 * (values - median), *_LOGIT_RANGE) for name, values in logs.items()}


def draw_masks(logits: Mapping[str, Any], key: jax.Array | None = None) -> dict[str, jax.Array]:
    """Draws masks with probabilities sigmoid(logits); their gradient is that of relaxed ones (binary concrete).

    Straight-through: Maddison et al., arXiv:1611.00712, and Jang et al., arXiv:1611.01144.

    Args:
        logits: By layer; may be traced.
        key: A random key; without one, weights are kept whose probability is above one half.

    Returns:
        By layer, zeros and ones of the logits' type.

    Raises:
        ValueError: `logits` are not a mapping of arrays, one holds NaN, or `key` is not a random key.
    """
    arrays = arrays_by_name("logits", logits)
    keys: list[jax.Array | None] = [None] * len(arrays)
    if key is not None:
        try:
            keys = list(jax.random.split(key, len(keys)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"key must be a random key from jax.random.key, got {key!r}.") from error
    return {name: _draw(jnp.asarray(arrays[name]), own) for name, own in zip(arrays, keys, strict=True)}


@promotion()
def _draw(logits: jax.Array, key: jax.Array | None) -> jax.Array:
    if key is not None:
        logits = logits + jax.random.logistic(key, logits.shape)
    relaxed = jax.nn.sigmoid(logits / _TEMPERATURE)
    return relaxed + jax.lax.stop_gradient((logits > 0) - relaxed)


def _quietly(fn: Callable[..., Any], params: Any, args: Any) -> Any:
    """Traces without the warning of what is skipped, which `trace` reports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return trace(fn, params, *args, weight_argnums=0)


def _random_half(rng: np.random.Generator, leaf: Any) -> jax.Array:
    values = rng.normal(size=leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1]))
    return jnp.asarray(values * (rng.random(leaf.shape) < 0.5), leaf.dtype)


def _place(path: tuple[Any, ...], bits: np.ndarray, weights: np.ndarray) -> _Place | None:
    """Returns how a layer's weights are made of a parameter's axes, None if they are not."""
    for order in itertools.permutations(range(bits.ndim)):  # the first is the order as it is
        if bits.size == weights.size and (bits.transpose(order).reshape(weights.shape) == weights).all():
            return _Place(path, order, weights.shape)
    return None
