"""VGG16 at 224x224 with the densities of Deep Compression."""

from phantom_jax.workloads.synthetic import SyntheticLayer, SyntheticWorkload

# Shapes: Simonyan and Zisserman, arXiv:1409.1556, configuration D. Densities in per cent, weights of each layer and
# activations at its output: Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015.
_SOURCE = "Han et al. 2015 (weights per layer; input activations: the output density of the layer before, 1 at first)"
_CONVOLUTIONS = (  # name, output side, channels, filters, weight density, output density
    ("conv1_1", 224, 3, 64, 58, 53),
    ("conv1_2", 224, 64, 64, 22, 89),
    ("conv2_1", 112, 64, 128, 34, 80),
    ("conv2_2", 112, 128, 128, 36, 81),
    ("conv3_1", 56, 128, 256, 53, 68),
    ("conv3_2", 56, 256, 256, 24, 70),
    ("conv3_3", 56, 256, 256, 42, 64),
    ("conv4_1", 28, 256, 512, 32, 51),
    ("conv4_2", 28, 512, 512, 27, 45),
    ("conv4_3", 28, 512, 512, 34, 34),
    ("conv5_1", 14, 512, 512, 35, 32),
    ("conv5_2", 14, 512, 512, 29, 29),
    ("conv5_3", 14, 512, 512, 36, 19),
)
_DENSE = (  # name, channels, filters, weight density, output density
    ("fc6", 25088, 4096, 4, 38),
    ("fc7", 4096, 4096, 4, 42),
    ("fc8", 4096, 1000, 23, 100),
)


def vgg16(seed: int = 0, images: int = 1) -> SyntheticWorkload:
    """Returns VGG16's 13 convolutions and 3 fully connected layers, with independent masks of published densities.

    Args:
        seed: Seed of the masks.
        images: Images B, each with activation masks of its own.

    Raises:
        ValueError: The seed or the number of images is not valid.
    """
    layers, density = [], 100
    for name, side, channels, filters, weight_density, output_density in _CONVOLUTIONS:
        shapes = (3, 3, channels, filters), (side, side, channels)
        layers.append(SyntheticLayer(name, *shapes, weight_density / 100, density / 100, {"padding": "SAME"}))
        density = output_density
    for name, channels, filters, weight_density, output_density in _DENSE:
        layers.append(SyntheticLayer(name, (channels, filters), (channels,), weight_density / 100, density / 100))
        density = output_density
    return SyntheticWorkload("vgg16", layers, _SOURCE, seed, images)
