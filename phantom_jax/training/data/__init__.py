"""Data sets of images with labels, for training small networks: loading, splits, order of the batches, augmentation.

Messages name an option as a command knows it: `data.dir` is `dir` of `load`.
"""

from phantom_jax.training.data.augmentation import augment
from phantom_jax.training.data.dataset import Dataset
from phantom_jax.training.data.load import load
from phantom_jax.training.data.order import batch_indices
from phantom_jax.training.data.splits import Splits, Subset, split

__all__ = [
    "Dataset",
    "Splits",
    "Subset",
    "augment",
    "batch_indices",
    "load",
    "split",
]
