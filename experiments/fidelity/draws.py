"""What the studies draw: weight probabilities of a given mean, blocks of weights, activations that drift.

All randomness comes from counter-based generators that are keyed by a seed and by what is drawn.
"""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Bool, Float, Float32

KINDS = ("iid", "channel")
STRONGEST = 2.0  # standard deviation of logits, where patterns are to differ
_STRENGTHS = (1.0, 1.0, 0.5)  # of filters, channels and taps: filters of 0.1 to 0.9, as real layers have them
_LARGEST_SHIFT = 60.0  # of logits, beyond which probabilities are 0 or 1


def generator(seed: int, *labels: object) -> np.random.Generator:
    """Returns the generator of a seed and of what is drawn, independent of all others.

    Args:
        seed: The seed.
        labels: What is drawn: strings and numbers.
    """
    digest = hashlib.sha256(repr((seed, *labels)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def weight_probabilities(
    random: np.random.Generator, shape: Sequence[int], mask_kind: str, density: float
) -> Float32[np.ndarray, "..."]:
    """Returns weight probabilities of a mean density.

    Args:
        random: Where random numbers come from.
        shape: Shape of the weights, `[*kernel, Cin/groups, K]` or `[Cin, K]`.
        mask_kind: `"iid"`, all equal; `"channel"`, a `weight_pattern`.
        density: The mean, above 0 and up to 1.
    """
    return np.full(shape, density, np.float32) if mask_kind == "iid" else weight_pattern(random, shape, density)


def weight_pattern(
    random: np.random.Generator,
    shape: Sequence[int],
    density: float,
    strengths: Sequence[float] | np.ndarray = _STRENGTHS,
) -> Float32[np.ndarray, "..."]:
    """Returns weight probabilities that differ by filter, channel and tap, and whose mean is exactly `density`.

    Their logits are sums of a normal number for each, and of one shift for all, solved for, that makes the mean.

    Args:
        random: Where random numbers come from.
        shape: Shape of the weights, `[*kernel, Cin/groups, K]` or `[Cin, K]`.
        density: The mean, above 0 and up to 1.
        strengths: Standard deviations of the logits of filters, of channels and of taps.
    """
    if density == 1:
        return np.ones(shape, np.float32)
    *kernel, channels, filters = shape
    axes = (filters,), (channels, 1), (*kernel, 1, 1)
    logits = sum(strength * random.standard_normal(axis) for strength, axis in zip(strengths, axes, strict=True))
    shift: Any = scipy.optimize.brentq(
        lambda shift: scipy.special.expit(logits + shift).mean() - density, -_LARGEST_SHIFT, _LARGEST_SHIFT
    )
    return scipy.special.expit(logits + shift).astype(np.float32)


def weight_blocks(shape: Sequence[int], blocks: int) -> list[tuple[Any, ...]]:
    """Returns the indices of blocks of weights, each of a range of channels and a range of filters.

    Args:
        shape: Shape of the weights, `[*kernel, Cin/groups, K]` or `[Cin, K]`.
        blocks: How many at most; there are fewer where they would not come out even.
    """
    channels, filters = shape[-2:]
    of_channels = min(channels, int(blocks**0.5))
    of_filters = min(filters, blocks // of_channels)
    return [(..., c, f) for c in _ranges(channels, of_channels) for f in _ranges(filters, of_filters)]


def redraw(
    mask: Bool[np.ndarray, "batch ..."], share: float, random: np.random.Generator
) -> Bool[np.ndarray, "batch ..."]:
    """Returns activations of which a share of the bits is drawn anew, at the density of their channel.

    A channel of a dense layer without positions has one bit per image, so there it is the density of the layer.
    """
    chosen, bits = random.random(mask.shape) < share, random.random(mask.shape)
    return np.where(chosen, bits < _densities(mask), mask)


def rescale(
    mask: Bool[np.ndarray, "batch ..."], factor: float, random: np.random.Generator
) -> Bool[np.ndarray, "batch ..."]:
    """Returns activations with bits cleared or set at random, so that densities of channels change by a factor.

    Where a density would exceed 1, it becomes 1. Channels are as in `redraw`.
    """
    bits = random.random(mask.shape)
    if factor <= 1:
        return mask & (bits < factor)
    density = _densities(mask)
    zeros = np.where(density < 1, 1 - density, 1.0)
    return mask | (bits < density * (factor - 1) / zeros)


DRIFTS = {"redrawn": redraw, "scaled": rescale}


def _densities(mask: Bool[np.ndarray, "batch ..."]) -> Float[np.ndarray, "..."]:
    return np.asarray(mask.mean() if mask.ndim == 2 else mask.mean(axis=tuple(range(mask.ndim - 1))))


def _ranges(size: int, parts: int) -> list[slice]:
    ends = [size * part // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]
