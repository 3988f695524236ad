"""Networks in flax.nnx: small ones that experiments train, and full VGG16 and MobileNetV1."""

from collections.abc import Callable, Mapping

from flax import nnx

from phantom_jax.training.networks.mobilenet import MobileNet, mobilenet_small, mobilenet_v1
from phantom_jax.training.networks.vgg import VGG, vgg16, vgg_small

# Each is called with the shape of a picture, the number of classes, random numbers, and options of its own.
MODELS: Mapping[str, Callable[..., nnx.Module]] = {
    "vgg_small": vgg_small,
    "mobilenet_small": mobilenet_small,
    "vgg16": vgg16,
    "mobilenet_v1": mobilenet_v1,
}

__all__ = ["MODELS", "VGG", "MobileNet", "mobilenet_small", "mobilenet_v1", "vgg16", "vgg_small"]
