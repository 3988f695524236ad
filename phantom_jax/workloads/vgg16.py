"""VGG16: 13 convolutions and 3 fully connected layers."""

from phantom_jax.workloads.network import DensityTable, LayerShape, Network, conv_shape, picture_side

_SOURCE = "Simonyan and Zisserman, arXiv:1409.1556, configuration D"
_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions and filters between poolings

# Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015: per cent of weights kept, and
# of activations that are not zero at each layer's output.
_HAN_WEIGHTS = (58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36, 4, 4, 23)
_HAN_OUTPUTS = (53, 89, 80, 81, 68, 70, 64, 51, 45, 34, 32, 29, 19, 38, 42, 100)
# As public simulators of SCNN (Parashar et al., ISCA 2017) set it: per cent of weights and of input activations.
_SCNN_WEIGHTS = (57, 21, 33, 35, 53, 22, 41, 32, 26, 34, 35, 29, 36)
_SCNN_INPUTS = (100, 50, 89, 79, 81, 63, 69, 71, 50, 45, 39, 33, 32)


def vgg16(size: int = 224) -> Network:
    """Returns VGG16. Density tables: `han`, and `scnn` for the convolutions alone.

    Args:
        size: Side of the input picture, a multiple of 32.

    Raises:
        ValueError: The size is not valid.
    """
    side, channels = picture_side(size), 3
    layers = []
    for stage, (depth, filters) in enumerate(_STAGES, 1):
        for index in range(1, depth + 1):
            layers.append(conv_shape(f"conv{stage}_{index}", side, 3, channels, filters))
            channels = filters
        side //= 2
    channels = side * side * channels
    for name, filters in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        layers.append(LayerShape(name, (channels, filters), (channels,)))
        channels = filters
    names = [layer.name for layer in layers]
    return Network("vgg16", _SOURCE, tuple(layers), {
        "han": DensityTable(
            "Han et al. 2015; a layer's input has the density of the output before it",
            "",
            "the input picture has no zeros, pooling leaves densities as they are",
            _per_cent(names, _HAN_WEIGHTS),
            _per_cent(names, (100, *_HAN_OUTPUTS[:-1])),
        ),
        "scnn": DensityTable(
            "public simulators of SCNN (Parashar et al. 2017)",
            "",
            "",
            _per_cent(names[:13], _SCNN_WEIGHTS),
            _per_cent(names[:13], _SCNN_INPUTS),
        ),
    })  # fmt: skip


def _per_cent(names: list[str], values: tuple[int, ...]) -> dict[str, float]:
    return {name: value / 100 for name, value in zip(names, values, strict=True)}
