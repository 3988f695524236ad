"""The studies: each function measures one case. What SPEC 8 asks of the proxy; the studies are this model's own.

A case does not depend on which others are measured, and those that differ in `inter_balance` alone see the same masks.
Layers hold hard activations; of their weights only the shape matters.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
import scipy.stats
from jaxtyping import Array, Float

from experiments.fidelity.cases import ErrorCase, GradientCase, RankCase, StaleCase
from experiments.fidelity.draws import (
    DRIFTS,
    STRONGEST,
    generator,
    weight_blocks,
    weight_pattern,
    weight_probabilities,
)
from phantom_jax.arch import Phantom2D
from phantom_jax.exact import simulate
from phantom_jax.layer import Layer, nonzero
from phantom_jax.proxy import Calibration, calibrate, expected_cycles_from
from phantom_jax.report import Ratio


def measure_error(layer: Layer, arch: Phantom2D, *, mask_kind: str, density: float, draws: int, seed: int) -> ErrorCase:
    """Measures the relative error of the proxy for weight probabilities of one kind and mean density.

    Args:
        layer: The layer, named.
        arch: The accelerator.
        mask_kind: Of the probabilities; see `weight_probabilities`.
        density: Their mean, above 0 and up to 1.
        draws: Weight masks drawn, at least 2.
        seed: Seed of everything drawn.
    """
    labels = "error", layer.name, mask_kind, density
    weights = weight_probabilities(generator(seed, *labels), layer.weights.shape, mask_kind, density)
    proxy = _expected(calibrate(layer, arch), weights)
    exact, error = _mean(_drawn_cycles(layer, arch, weights, draws, seed, *labels))
    return ErrorCase(
        layer=str(layer.name),
        mask_kind=mask_kind,
        density=density,
        inter_balance=arch.inter_balance,
        proxy=proxy,
        exact=exact,
        standard_error=_ratio(error, exact),
        error=_ratio(proxy - exact, exact),
    )


def measure_rank(layer: Layer, arch: Phantom2D, *, density: float, patterns: int, draws: int, seed: int) -> RankCase:
    """Measures whether the proxy ranks weight patterns of equal mean density as the exact model does.

    Each is a `weight_pattern` of other strengths, so they differ in how much they favor filters, channels and taps, and
    in which.

    Args:
        layer: The layer, named.
        arch: The accelerator.
        density: Mean probability of each pattern, above 0 and below 1.
        patterns: How many, at least 3.
        draws: Weight masks drawn of each, at least 2.
        seed: Seed of everything drawn.
    """
    calibration = calibrate(layer, arch)
    proxy, cycles = [], []
    for pattern in range(patterns):
        labels = "rank", layer.name, density, pattern
        random = generator(seed, *labels)
        weights = weight_pattern(random, layer.weights.shape, density, random.uniform(0, STRONGEST, 3))
        proxy.append(_expected(calibration, weights))
        cycles.append(_drawn_cycles(layer, arch, weights, draws, seed, *labels))
    exact, errors = zip(*map(_mean, cycles), strict=True)
    return RankCase(
        layer=str(layer.name),
        inter_balance=arch.inter_balance,
        proxy=tuple(proxy),
        exact=exact,
        standard_errors=errors,
        correlation=rank_correlation(proxy, exact),
        halves=rank_correlation(*_halves(np.stack(cycles, 1))),
        spread=_ratio(float(np.std(exact, ddof=1)), float(np.mean(errors))),
    )


def measure_gradient(
    layer: Layer, arch: Phantom2D, *, density: float, blocks: int, step: float, draws: int, seed: int
) -> GradientCase:
    """Measures the angle between the proxy's gradient and central differences of the exact model's mean.

    The probabilities of a block move together. Plus and minus meet the same uniform numbers: a bit is one where its
    number is below its probability.

    Args:
        layer: The layer, named.
        arch: The accelerator.
        density: Mean of a `weight_pattern`, which is then clipped to [step, 1 - step], so that all can move both ways.
        blocks: How many; see `weight_blocks`.
        step: How far probabilities move, above 0 and below 0.5.
        draws: Draws of uniform numbers, at least 2.
        seed: Seed of everything drawn.
    """
    labels = "gradient", layer.name, density
    shape = layer.weights.shape
    weights = np.clip(weight_pattern(generator(seed, *labels), shape, density), step, 1 - step)
    parts = weight_blocks(shape, blocks)
    gradient = np.asarray(_gradient(weights, calibrate(layer, arch)), np.float64)
    proxy = np.array([gradient[part].sum() for part in parts])

    def moved(draw: int) -> Iterator[Layer]:
        uniform = generator(seed, *labels, draw).random(shape, np.float32)
        for part in parts:
            for change in (step, -step):
                mask = uniform < weights
                mask[part] = uniform[part] < weights[part] + change
                yield dataclasses.replace(layer, weights=mask)

    cycles = np.stack([_cycles(moved(draw), arch) for draw in range(draws)]).reshape(draws, -1, 2)
    slopes = (cycles[..., 0] - cycles[..., 1]) / (2 * step)
    exact, halves = slopes.mean(0), _halves(slopes)
    return GradientCase(
        layer=str(layer.name),
        inter_balance=arch.inter_balance,
        proxy=tuple(proxy.tolist()),
        exact=tuple(exact.tolist()),
        cosine=cosine(proxy, exact),
        halves=cosine(*halves),
        centered=cosine(proxy - proxy.mean(), exact - exact.mean()),
        centered_halves=cosine(*(half - half.mean() for half in halves)),
    )


def measure_stale(
    layer: Layer, arch: Phantom2D, *, drift: str, amount: float, density: float, draws: int, seed: int
) -> StaleCase:
    """Measures the error of a calibration after the activations have drifted, and that of a new one.

    All drifts of a layer meet the same weight masks, and those of a kind start from the same uniform numbers.

    Args:
        layer: The layer, named; its activations are those of the old calibration.
        arch: The accelerator.
        drift: `"redrawn"`, see `redraw`; `"scaled"`, see `rescale`.
        amount: The share of the bits, or the factor of the density.
        density: Mean weight probability, of a `weight_pattern`.
        draws: Weight masks drawn, at least 2.
        seed: Seed of everything drawn.
    """
    labels = "stale", layer.name, density
    weights = weight_pattern(generator(seed, *labels), layer.weights.shape, density)
    activations = DRIFTS[drift](nonzero(layer.activations), amount, generator(seed, *labels, drift))
    drifted = dataclasses.replace(layer, activations=activations)
    stale, fresh = (_expected(calibrate(each, arch), weights) for each in (layer, drifted))
    exact, error = _mean(_drawn_cycles(drifted, arch, weights, draws, seed, *labels))
    return StaleCase(
        layer=str(layer.name),
        inter_balance=arch.inter_balance,
        drift=drift,
        amount=amount,
        activation_density=float(activations.mean()),
        stale=stale,
        fresh=fresh,
        exact=exact,
        standard_error=_ratio(error, exact),
        stale_error=_ratio(stale - exact, exact),
        fresh_error=_ratio(fresh - exact, exact),
    )


def rank_correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Ratio:
    """Returns Spearman's rank correlation, None where all of a side are equal."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(scipy.stats.spearmanr(first, second).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def cosine(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> Ratio:
    """Returns the cosine of the angle between two vectors, None where one has no length."""
    return _ratio(float(first @ second), float(np.linalg.norm(first) * np.linalg.norm(second)))


def _expected(calibration: Calibration, weights: np.ndarray) -> float:
    return float(expected_cycles_from(calibration, [weights])[0])


@jax.jit
@jax.grad
def _gradient(weights: Array, calibration: Calibration) -> Array:
    return expected_cycles_from(calibration, [weights])[0]


def _drawn_cycles(
    layer: Layer, arch: Phantom2D, weights: np.ndarray, draws: int, seed: int, *labels: object
) -> Float[np.ndarray, " draws"]:
    """Returns the exact cycles under drawn weight masks, each the mean over images."""
    masks = (generator(seed, *labels, draw).random(weights.shape, np.float32) < weights for draw in range(draws))
    return _cycles((dataclasses.replace(layer, weights=mask) for mask in masks), arch)


def _cycles(layers: Iterable[Layer], arch: Phantom2D) -> Float[np.ndarray, " layers"]:
    return np.array([report.cycles.mean() for report in simulate(layers, arch).layers])


def _mean(cycles: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """Returns the mean and its standard error."""
    return float(cycles.mean()), float(cycles.std(ddof=1) / len(cycles) ** 0.5)


def _halves(values: Float[np.ndarray, "draws ..."]) -> list[Float[np.ndarray, "..."]]:
    """Returns the means over the first and over the second half of the draws."""
    return [half.mean(0) for half in np.array_split(values, 2)]


def _ratio(numerator: float, denominator: float) -> Ratio:
    return numerator / denominator if denominator else None
