"""AlexNet: 5 convolutions, 3 of them in two groups, and 3 fully connected layers."""

from phantom_jax.workloads.network import DensityTable, LayerShape, Network, conv_shape, picture_side

_SOURCE = (
    "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012; a picture of 224x224 is "
    "padded by 3, as its 55x55 outputs of the first convolution take"
)
_FILTERS = 96, 256, 384, 384, 256
_GROUPED = ("conv2", "conv4", "conv5")
_POOLED = ("conv1", "conv2", "conv5")  # by 3x3 windows of stride 2
# Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015, table 4: per cent of weights
# kept, and of activations that are not zero at each layer's output.
_HAN_WEIGHTS = (84, 38, 35, 37, 37, 9, 9, 25)
_HAN_OUTPUTS = (88, 52, 37, 40, 34, 36, 40, 100)


def alexnet(size: int = 224) -> Network:
    """Returns AlexNet. Density table: `han`.

    Args:
        size: Side of the input picture, a multiple of 32.

    Raises:
        ValueError: The size is not valid.
    """
    layers = [conv_shape("conv1", picture_side(size), 11, 3, _FILTERS[0], stride=4, padding=((1, 2), (1, 2)))]
    side, channels = (size + 3 - 11) // 4 + 1, _FILTERS[0]
    for index, filters in enumerate(_FILTERS[1:], 2):
        if layers[-1].name in _POOLED:
            side = _pooled(side)
        name = f"conv{index}"
        groups = 2 if name in _GROUPED else 1
        layers.append(conv_shape(name, side, 5 if index == 2 else 3, channels, filters, groups=groups))
        channels = filters
    channels *= _pooled(side) ** 2
    for name, filters in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        layers.append(LayerShape(name, (channels, filters), (channels,)))
        channels = filters
    names = [layer.name for layer in layers]
    table = DensityTable(
        "Han et al. 2015; a layer's input has the density of the output before it",
        "",
        "the input picture has no zeros, pooling and normalization leave densities as they are",
        {name: value / 100 for name, value in zip(names, _HAN_WEIGHTS, strict=True)},
        {name: value / 100 for name, value in zip(names, (100, *_HAN_OUTPUTS[:-1]), strict=True)},
    )
    return Network("alexnet", _SOURCE, tuple(layers), {"han": table})


def _pooled(side: int) -> int:
    """Returns the side after pooling, which leaves one element at least."""
    return max(side - 3, 0) // 2 + 1
