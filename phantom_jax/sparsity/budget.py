"""How many weights to keep: a density, or exact cycles."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from phantom_jax.arch import Phantom2D, check_arch
from phantom_jax.baselines import Dense
from phantom_jax.checks import integer, number
from phantom_jax.exact import simulate
from phantom_jax.layer import Layer
from phantom_jax.sparsity.methods import keep_best, places_by_score
from phantom_jax.sparsity.named import arrays_by_name, layers_by_name, shapes_of

_STRIDE = 4  # times that the number of weights grows or falls at most while it is not enclosed
_CLOSE = 0.005  # of the cycles that are wanted: near enough to stop the search


def dense_cycles(layers: Sequence[Layer], arch: Phantom2D) -> int:
    """Returns the cycles per image of the same mesh and mapping without skipping, over all layers.

    Raises:
        ValueError: As in `simulate`.
    """
    check_arch(arch)
    return sum(layer.dense_cycles for layer in Dense(arch=arch).simulate(layers).layers)


def exact_cycles(layers: Sequence[Layer], masks: Mapping[str, np.ndarray], arch: Phantom2D) -> float:
    """Returns the exact cycles of layers with other weight masks, as the mean over their images.

    Args:
        layers: Layers with the activations of a few images.
        masks: By layer, of its weights' shape.
        arch: The accelerator.

    Raises:
        ValueError: As in `simulate`; or `masks` lack a layer, hold an unknown one, or an array is of another shape or
            holds NaN.
    """
    named = layers_by_name(layers)
    arrays = arrays_by_name("masks", masks, shapes_of(named))
    masked = [dataclasses.replace(layer, weights=arrays[name]) for name, layer in named.items()]
    return float(simulate(masked, arch).cycles.mean())


def least_cycles(layers: Sequence[Layer], arch: Phantom2D) -> float:
    """Returns the exact cycles of layers with one weight each, the first, as the mean over their images.

    Args:
        layers: Layers with the activations of a few images.
        arch: The accelerator.

    Raises:
        ValueError: As in `simulate`.
    """
    zeros = {name: np.zeros(shape) for name, shape in shapes_of(layers_by_name(layers)).items()}
    return exact_cycles(layers, {name: keep_best({name: array}, 1)[name] for name, array in zeros.items()}, arch)


def keep_density(scores: Mapping[str, np.ndarray], density: float) -> dict[str, np.ndarray]:
    """Returns masks of a density over all layers, by score.

    Args:
        scores: By layer.
        density: Weights to keep, as a share of all.

    Raises:
        ValueError: `density` is not a number from 0 to 1, or as in `keep_best`.
    """
    number("density", density, "a number from 0 to 1", lambda value: 0 <= value <= 1)
    arrays = arrays_by_name("scores", scores)
    return keep_best(arrays, round(density * sum(values.size for values in arrays.values())))


def keep_cycles(
    scores: Mapping[str, np.ndarray], layers: Sequence[Layer], arch: Phantom2D, cycles: float, start: int | None = None
) -> dict[str, np.ndarray]:
    """Returns masks, by score, that take `cycles` exact cycles, or all ones if those take no more.

    Cycles grow with the weights that are kept, if not always by each of them, so the number of weights is searched: in
    strides until it is enclosed, then by interpolation and bisection in turn. The masks are the nearest that the search
    meets, within 0.5% where single weights matter so little; `exact_cycles` says how near they are.

    Args:
        scores: By layer.
        layers: Layers with the activations of a few images.
        arch: The accelerator.
        cycles: Mean per image.
        start: How many weights to try first, such as those that a last choice kept, which saves most of the search;
            all of them by default. If their cycles are near enough, more are not tried.

    Raises:
        ValueError: `scores` lack a layer, hold an unknown one, or an array is of another shape or holds NaN; `cycles`
            is not a positive number, or is below what one weight in each layer takes, as a share would be; `start` is
            not a positive integer; or as in `simulate`.
    """
    number("cycles", cycles, "a positive number", lambda value: 0 < value < math.inf)
    named = layers_by_name(layers)
    places = places_by_score(arrays_by_name("scores", scores, shapes_of(named)))
    masks, error = _search(places, list(named.values()), arch, cycles, start)
    # Masks with a weight in each layer that take no more show that such cycles can be meant.
    if error > _CLOSE * cycles or not all(mask.any() for mask in masks.values()):
        least = least_cycles(layers, arch)
        if cycles < least:
            raise ValueError(
                f"cycles must be at least {least:g}, which one weight in each layer takes, got {cycles}; they are a "
                "number per image, not a share of `dense_cycles`."
            )
    return masks


def _search(
    places: Mapping[str, np.ndarray], layers: Sequence[Layer], arch: Phantom2D, cycles: float, start: int | None
) -> tuple[dict[str, np.ndarray], float]:
    """Returns the masks whose cycles are nearest, and by how much they are more; `places` are the ranks of weights."""
    size = sum(values.size for values in places.values())
    fewest, below, most, above = 0, -cycles, size + 1, math.inf  # weights, and how far off their cycles are
    best, error = {}, math.inf
    count = size if start is None else min(integer("start", start, minimum=1), size)
    interpolate = True
    while True:
        masks = {name: values < count for name, values in places.items()}
        found = exact_cycles(layers, masks, arch) - cycles
        if found <= 0 and count == size:
            return masks, found
        if abs(found) < abs(error):
            best, error = masks, found
        if found > 0:
            most, above = count, found
        else:
            fewest, below = count, found
        if most - fewest <= 1 or abs(error) <= _CLOSE * cycles:
            return best, error
        if fewest == 0 or above == math.inf:  # twice as far as would do if cycles were in proportion to weights
            step = 2 * math.ceil(count * abs(found) / max(found + cycles, 1))
            low, high = math.ceil(count / _STRIDE), min(_STRIDE * count, size)
            count = min(max(count - step if found > 0 else count + step, low), high)
        else:
            share = below / (below - above) if interpolate else 0.5
            interpolate = not interpolate
            count = min(max(fewest + round((most - fewest) * share), fewest + 1), most - 1)
