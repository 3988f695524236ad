"""What activations cost in cycles, as a price on the share of them that are not zero; this model's choice."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phantom_jax.arch import Phantom2D
from phantom_jax.layer import Layer
from phantom_jax.promotion import promotion
from phantom_jax.proxy import Calibration, calibrate, expected_cycles_from
from phantom_jax.sparsity.named import arrays_by_name, layers_by_name, shapes_of

_REMOVED = 0.25  # of a channel's ones: what is saved without them says what they cost
_CERTAIN = 0.98  # probability of weights that are certain to stay; cores that are tied have no slope


@promotion()
def activation_prices(layers: Sequence[Layer], weights: Mapping[str, Any], arch: Phantom2D) -> dict[str, np.ndarray]:
    """Returns what each input channel of layers costs: the expected cycles that its ones take, to first order.

    A quarter of a channel's ones, always the same, is taken out. What the calibration counts changes, and the
    derivative of the expected cycles along this change gives the cycles saved. A price is cycles saved divided by the
    share of elements taken out. Price times share of ones, summed over channels, is the cost of all ones. No price is
    negative; that of a channel without ones or weights is 0.

    Args:
        layers: Layers with the activations of a few images.
        weights: By layer, the probabilities of weights to be kept, or masks.
        arch: The accelerator.

    Returns:
        Cycles per image of each layer's channels, float32 `[Cin]`.

    Raises:
        ValueError: As in `simulate` and `expected_cycles_from`; or `weights` lack a layer, hold an unknown one, or an
            array is of another shape or holds NaN.
    """
    named = layers_by_name(layers)
    arrays = arrays_by_name("weights", weights, shapes_of(named))
    return {name: _prices(layer, arrays[name], arch) for name, layer in named.items()}


@promotion()
def priced_activity(inputs: Mapping[str, jax.Array], prices: Mapping[str, Any]) -> jax.Array:
    """Returns the sum over layers and channels of price times activity, for a loss.

    The activity of a channel is the squared sum of magnitudes over the sum of squares, by the number of elements
    (Hoyer-Square; Yang et al., arXiv:1908.09979). It is the share of ones where all that is not zero is equally large,
    and less elsewhere; it does not depend on scale, and its gradient makes small values smaller and large ones larger.

    Args:
        inputs: What layers read, channels last, as `Masked.with_inputs` returns it.
        prices: By layer, of its channels.

    Raises:
        ValueError: `prices` lack a layer, hold an unknown one, or are not one for each channel.
    """
    channels = {name: values.shape[-1:] for name, values in inputs.items()}
    arrays = arrays_by_name("prices", prices, channels)
    return jnp.stack([(arrays[name] * _activity(values)).sum() for name, values in inputs.items()]).sum()


def _activity(values: jax.Array) -> jax.Array:
    """Returns the activity of each channel, 0 of those that are silent."""
    rows = values.reshape(-1, values.shape[-1]).astype(jnp.float32)
    squares = (rows**2).sum(0)
    silent = squares == 0
    return jnp.where(silent, 0, jnp.abs(rows).sum(0) ** 2 / jnp.where(silent, 1, squares)) / len(rows)


def _prices(layer: Layer, weights: Any, arch: Phantom2D) -> np.ndarray:
    ones = np.asarray(layer.activations) != 0
    taken = _some(ones)
    first, last = _chunks(layer, arch)
    depth, groups = len(first), layer.feature_group_count
    whole, less = (calibrate(dataclasses.replace(layer, activations=seen), arch) for seen in (ones, ones & ~taken))
    counts = _counts(whole)
    chances = jnp.asarray(weights if np.issubdtype(weights.dtype, np.floating) else weights != 0, jnp.float32)
    slope = _slope(whole, (counts + _counts(less)) / 2, jnp.minimum(chances, _CERTAIN))
    saved = np.zeros((groups, depth))
    apart = next(step for step in itertools.count(1) if (first[step:] > last[:-step]).all())
    for start in range(min(apart, depth)):  # channels that share no chunk: what changes there is theirs
        chosen = np.arange(start, depth, apart)
        out = taken & np.isin(np.arange(groups * depth) % depth, chosen)
        change = counts - _counts(calibrate(dataclasses.replace(layer, activations=ones & ~out), arch))
        sums = np.pad(np.cumsum(_by_chunk(slope * change), 1), ((0, 0), (1, 0)))
        saved[:, chosen] = sums[:, last[chosen] + 1] - sums[:, first[chosen]]
    shares = taken.reshape(-1, groups * depth).mean(0)
    prices = np.divide(saved.ravel(), shares, out=np.zeros(shares.shape), where=shares > 0)
    return np.maximum(prices, 0).astype(np.float32)


def _some(ones: np.ndarray) -> np.ndarray:
    """Returns a random quarter of each channel's ones, rounded up, always the same."""
    rows = ones.reshape(-1, ones.shape[-1])
    order = np.where(rows, np.random.default_rng(0).random(rows.shape), 1).argsort(0).argsort(0)
    return (rows & (order < np.ceil(_REMOVED * rows.sum(0)))).reshape(ones.shape)


def _chunks(layer: Layer, arch: Phantom2D) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and the last chunk of each of a group's channels."""
    *kernel, depth, _ = layer.weights.shape
    taps = math.prod(kernel)
    begin = np.arange(depth) * taps
    return begin // arch.slots, (begin + taps - 1) // arch.slots


def _counts(calibration: Calibration) -> jax.Array:
    """Returns what the calibration of a layer has of its activations, as numbers."""
    (layer,) = calibration.layers
    return jnp.asarray(layer.windows if layer.table is None else layer.table, jnp.float32)


def _by_chunk(products: jax.Array) -> np.ndarray:
    """Returns sums `[groups, G]` over all other axes of a table or of windows, see `LayerCalibration`."""
    chunk = {5: 2, 6: 3}[products.ndim]
    return np.asarray(products, np.float64).sum(tuple(axis for axis in range(products.ndim) if axis not in (1, chunk)))


@jax.jit
def _slope(calibration: Calibration, counts: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the derivative of the expected cycles by what the calibration has of activations."""
    (layer,) = calibration.layers
    name = "windows" if layer.table is None else "table"

    def cycles(counts: jax.Array) -> jax.Array:
        changed = dataclasses.replace(calibration, layers=(dataclasses.replace(layer, **{name: counts}),))
        return expected_cycles_from(changed, [weights]).sum()

    return jax.grad(cycles)(counts)
