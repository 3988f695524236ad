"""Which images a step of training sees: a function of seed and step alone, the same on every machine."""

import functools

import numpy as np

from phantom_jax.checks import check_seed, integer
from phantom_jax.random import permutation

_EPOCHS = 4 << 32  # streams of the epochs' orders, beside those of masks and splits


def batch_indices(step: int, count: int, batch_size: int, seed: int) -> np.ndarray:
    """Returns the images of a step.

    An epoch is `count // batch_size` steps and goes through the images in an order of its own; those of its incomplete
    last batch are left out. A run that is resumed needs to know no more than its step.

    Args:
        step: The step, from 0, over all epochs.
        count: Images of the training set.
        batch_size: Images of a batch.
        seed: Seed of the orders, from 0 to 2^64 - 1.

    Returns:
        Indices `[batch_size]` from 0 to `count` - 1, read-only.

    Raises:
        ValueError: An argument is not valid.
    """
    step = integer("step", step, minimum=0)
    count = integer("count", count, minimum=1)
    batch_size = integer("batch_size", batch_size, minimum=1)
    if batch_size > count:
        raise ValueError(f"batch_size must be at most {count}, the number of training images, got {batch_size}.")
    epoch, batch = divmod(step, count // batch_size)
    return _order(check_seed(seed), epoch, count)[batch * batch_size : (batch + 1) * batch_size]


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    order = permutation(seed, _EPOCHS + epoch, count)
    order.setflags(write=False)
    return order
