"""Networks to simulate: sequences of layers with masks from published densities, or from a user's file."""

from phantom_jax.workloads.npz import read_npz
from phantom_jax.workloads.synthetic import SyntheticLayer, SyntheticWorkload
from phantom_jax.workloads.vgg16 import vgg16
from phantom_jax.workloads.workload import Workload

__all__ = ["SyntheticLayer", "SyntheticWorkload", "Workload", "read_npz", "vgg16"]
