"""How many weights to keep: a density, or exact cycles."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from phantom_jax.arch import Phantom2D
from phantom_jax.baselines import Dense
from phantom_jax.layer import Layer
from phantom_jax.simulate import simulate
from phantom_jax.sparsity.methods import keep_best

_CLOSE = 0.005  # of the cycles that are wanted: near enough to stop the search


def cubic(start: float, end: float, progress: float) -> float:
    """Returns the target of a gradual schedule (Zhu and Gupta, arXiv:1710.01878) at a progress from 0 to 1."""
    return end + (start - end) * (1 - min(max(progress, 0.0), 1.0)) ** 3


def dense_cycles(layers: Sequence[Layer], arch: Phantom2D) -> int:
    """Returns the cycles per image of the same mesh and mapping without skipping, over all layers."""
    return sum(layer.dense_cycles for layer in Dense(arch=arch).simulate(layers).layers)


def exact_cycles(layers: Sequence[Layer], masks: Mapping[str, np.ndarray], arch: Phantom2D) -> float:
    """Returns the exact cycles of layers with other weight masks, as the mean over their images."""
    masked = [dataclasses.replace(layer, weights=masks[str(layer.name)]) for layer in layers]
    return float(simulate(masked, arch).cycles.mean())


def keep_density(scores: Mapping[str, np.ndarray], density: float) -> dict[str, np.ndarray]:
    """Returns masks of a density over all layers, by score."""
    return keep_best(scores, round(density * sum(values.size for values in scores.values())))


def keep_cycles(
    scores: Mapping[str, np.ndarray], layers: Sequence[Layer], arch: Phantom2D, cycles: float
) -> dict[str, np.ndarray]:
    """Returns masks, by score, that take so many exact cycles, or all ones if those take no more.

    Cycles grow with the weights that are kept, if not always by each of them, so the number of weights is searched by
    interpolation and bisection in turn.

    Args:
        scores: By layer.
        layers: Layers with the activations of a few images.
        arch: The accelerator.
        cycles: Per image, in the mean.
    """
    most = sum(values.size for values in scores.values())
    best = keep_best(scores, most)
    above = exact_cycles(layers, best, arch) - cycles
    if above <= 0:
        return best
    fewest, below, error = 0, -cycles, above
    interpolate = True
    while most - fewest > 1 and abs(error) > _CLOSE * cycles:
        share = below / (below - above) if interpolate else 0.5
        middle = min(max(fewest + round((most - fewest) * share), fewest + 1), most - 1)
        interpolate = not interpolate
        masks = keep_best(scores, middle)
        found = exact_cycles(layers, masks, arch) - cycles
        if abs(found) < abs(error):
            best, error = masks, found
        if found > 0:
            most, above = middle, found
        else:
            fewest, below = middle, found
    return best
