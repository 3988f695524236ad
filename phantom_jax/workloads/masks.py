"""Masks drawn from densities: the same bits for the same seed on every machine (SPEC 9).

All randomness is raw 32-bit numbers of the counter-based generator Philox4x64-10, keyed by (seed, stream), compared
with integer thresholds or with each other. Nothing depends on how NumPy turns such numbers into distributions.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from phantom_jax.checks import number
from phantom_jax.random import Draws

_GRID = 1 << 16  # quantiles of the Beta distribution are rounded to it, so that last bits of libraries do not matter


def beta_densities(draws: Draws, mean: float, spread: float, count: int) -> Float[np.ndarray, " count"]:
    """Returns densities from a Beta distribution, as channels of a real network have them.

    Args:
        draws: Where the random numbers come from.
        mean: Its mean.
        spread: Its standard deviation over sqrt(mean * (1 - mean)), the largest that a density can have.
        count: How many.
    """
    import scipy.special  # takes a while to import, and most workloads do without

    if spread == 0 or mean in (0.0, 1.0):
        return np.full(count, mean)
    total = 1 / spread**2 - 1  # of the distribution's two parameters
    uniform = (draws.numbers(count) + 0.5) / (1 << 32)
    quantiles = scipy.special.betaincinv(mean * total, (1 - mean) * total, uniform)
    return np.rint(quantiles * _GRID) / _GRID


def n_of_m(draws: Draws, shape: Sequence[int], n: int, m: int) -> Bool[np.ndarray, "..."]:
    """Returns a weight mask with exactly n ones among every m consecutive input channels.

    Where the number of channels is not a multiple of m, the last group is shorter. It holds n ones, or is all
    ones if it has no more than n channels. Depthwise weights, of one channel each, are thus all ones.

    Args:
        draws: Where the random numbers come from.
        shape: Shape of the weights, `[*kernel, Cin/groups, K]` or `[Cin, K]`.
        n: Ones per group.
        m: Channels per group.
    """
    *kernel, channels, filters = shape
    mask = np.empty((math.prod(kernel), channels, filters), bool)
    for tap in mask:
        for start in range(0, channels, m):
            keys = draws.numbers(min(m, channels - start) * filters).reshape(-1, filters)
            # A channel's rank is the number of channels that come before it; of equal keys, the first.
            ranks = np.zeros(keys.shape, np.int32)
            for other, key in enumerate(keys):
                ranks += key < keys
                ranks[other + 1 :] += key == keys[other + 1 :]
            tap[start : start + m] = ranks < n
    return mask.reshape(shape)


def check_density(argument: str, value: Any) -> float:
    """Returns a density as a float.

    Raises:
        ValueError: It is not a number from 0 to 1.
    """
    return number(argument, value, "a number from 0 to 1", lambda density: 0 <= density <= 1)


def check_spread(argument: str, value: Any) -> float:
    """Returns a relative spread as a float.

    Raises:
        ValueError: It is neither 0 nor a number from 0.001 to below 1: above, no Beta distribution has it; below, its
            quantiles are not worth computing.
    """
    return number(
        argument, value, "0 or a number from 0.001 to below 1", lambda spread: spread == 0 or 1e-3 <= spread < 1
    )


def check_pattern(argument: str, value: Any) -> str | tuple[int, int] | None:
    """Returns a weight pattern: None, `"kernel"`, `"channel"`, or (n, m) for `"n:m"`.

    Raises:
        ValueError: It is not a weight pattern, or n is not from 1 to m.
    """
    if value is None or (isinstance(value, str) and value in ("kernel", "channel")):
        return value
    match = re.fullmatch(r"(\d+):(\d+)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{argument} must be kernel, channel, N:M (such as 2:4) or null, got {value!r}.")
    n, m = map(int, match.groups())
    if not 1 <= n <= m:
        raise ValueError(f"{argument} must be N:M with N from 1 to M, got {value!r}.")
    return n, m
