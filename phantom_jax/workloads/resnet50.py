"""ResNet-50: 53 convolutions and a fully connected layer."""

from phantom_jax.workloads.network import LayerShape, Network, conv_shape, picture_side, uniform_table

_SOURCE = (
    "He et al., arXiv:1512.03385, table 1; stride 2 in the 3x3 convolution of a stage's first block, as is usual now"
)
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, filters of the 3x3 convolution


def resnet50(size: int = 224) -> Network:
    """Returns ResNet-50. Density table: `assumed`, 0.2 for weights and 0.5 for activations.

    Args:
        size: Side of the input picture, a multiple of 32.

    Raises:
        ValueError: The size is not valid.
    """
    side = picture_side(size)
    layers = [conv_shape("conv1", side, 7, 3, 64, stride=2, padding=3)]
    side, channels = side // 4, 64  # after the pooling of stride 2
    for stage, (blocks, filters) in enumerate(_STAGES, 1):
        for block in range(1, blocks + 1):
            name, stride = f"s{stage}b{block}", 2 if stage > 1 and block == 1 else 1
            layers.append(conv_shape(f"{name}_conv1", side, 1, channels, filters))
            layers.append(conv_shape(f"{name}_conv2", side, 3, filters, filters, stride=stride, padding=1))
            layers.append(conv_shape(f"{name}_conv3", side // stride, 1, filters, 4 * filters))
            if block == 1:
                layers.append(conv_shape(f"{name}_down", side, 1, channels, 4 * filters, stride=stride, padding=0))
            side, channels = side // stride, 4 * filters
    layers.append(LayerShape("fc", (channels, 1000), (channels,)))
    table = uniform_table(tuple(layers), 0.2, 0.5)
    return Network("resnet50", _SOURCE, tuple(layers), {"assumed": table})
