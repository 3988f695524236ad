"""Random numbers that are the same for the same seed on every machine (SPEC 9).

All randomness is raw 32-bit numbers of the counter-based generator Philox4x64-10, keyed by (seed, stream), compared
with integer thresholds or with each other. Nothing depends on how NumPy turns such numbers into distributions.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt

_DRAWS = 1 << 22  # 32-bit numbers drawn at a time


class Draws:
    """A stream of 32-bit random numbers."""

    def __init__(self, seed: int, stream: int) -> None:
        """Starts a stream.

        Args:
            seed: First word of the key.
            stream: Second word of the key.
        """
        self._generator = np.random.Philox(key=np.array([seed, stream], np.uint64))

    def numbers(self, size: int) -> UInt[np.ndarray, " size"]:
        """Returns the next `size` numbers; an odd one out is dropped."""
        raw = self._generator.random_raw(-(-size // 2))
        return raw.astype("<u8", copy=False).view("<u4")[:size]

    def bits(self, shape: Sequence[int], density: float | Float[np.ndarray, " last"]) -> Bool[np.ndarray, "..."]:
        """Returns independent bits that are ones with a probability, to within 2^-32.

        Args:
            shape: Shape of the mask.
            density: The probability, or one for each index of the last axis.
        """
        thresholds = np.rint(np.asarray(density, np.float64) * (1 << 32)).astype(np.uint64)
        bits = np.empty((math.prod(shape[:-1]), shape[-1]), bool)
        step = max(2, _DRAWS // shape[-1] // 2 * 2)  # even, so that every slab but the last uses whole draws
        for start in range(0, len(bits), step):
            slab = bits[start : start + step]
            np.less(self.numbers(slab.size).reshape(slab.shape), thresholds, out=slab)
        return bits.reshape(shape)


def permutation(seed: int, stream: int, count: int) -> np.ndarray:
    """Returns the numbers from 0 to `count` - 1 in a random order.

    Args:
        seed: Any seed.
        stream: Different ones give independent orders for the same seed.
        count: How many.
    """
    return np.argsort(Draws(seed, stream).numbers(count), kind="stable")
