"""Networks to simulate: sequences of layers with masks drawn from densities, or from a user's file."""

from phantom_jax.workloads.alexnet import alexnet
from phantom_jax.workloads.googlenet import googlenet
from phantom_jax.workloads.inceptionnext_t import inceptionnext_t
from phantom_jax.workloads.mobilenet_v1 import mobilenet_v1
from phantom_jax.workloads.network import DensityTable, LayerShape, Network
from phantom_jax.workloads.npz import read_arrays, read_npz, write_npz
from phantom_jax.workloads.resnet50 import resnet50
from phantom_jax.workloads.synthetic import KINDS, SyntheticWorkload
from phantom_jax.workloads.vgg16 import vgg16
from phantom_jax.workloads.workload import FileWorkload, Workload

NETWORKS = {
    "vgg16": vgg16,
    "mobilenet_v1": mobilenet_v1,
    "resnet50": resnet50,
    "inceptionnext_t": inceptionnext_t,
    "alexnet": alexnet,
    "googlenet": googlenet,
}

__all__ = [
    "KINDS",
    "NETWORKS",
    "DensityTable",
    "FileWorkload",
    "LayerShape",
    "Network",
    "SyntheticWorkload",
    "Workload",
    "alexnet",
    "googlenet",
    "inceptionnext_t",
    "mobilenet_v1",
    "read_arrays",
    "read_npz",
    "resnet50",
    "vgg16",
    "write_npz",
]
