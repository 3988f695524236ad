"""MobileNetV1: a convolution, 13 depthwise and pointwise pairs, a fully connected layer."""

from phantom_jax.checks import number
from phantom_jax.workloads.network import DensityTable, LayerShape, Network, conv_shape, picture_side

_SOURCE = "Howard et al., arXiv:1704.04861, table 1"
_PAIRS = (  # filters of the pointwise convolution, stride of the depthwise one
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    *((1024, 2), (1024, 1)),
)
# SparseML's pruned release; what it does not prune is dense.
_POINTWISE_WEIGHTS = (1.0, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1)
_ACTIVATIONS = 0.7  # real layers of such a network have 0.58 to 0.86


def mobilenet_v1(size: int = 224, width: float = 1.0) -> Network:
    """Returns MobileNetV1, of 28 layers. Density table: `sparseml`, whose activations are assumed.

    Args:
        size: Side of the input picture, a multiple of 32.
        width: Multiplier of all channels, such as 1.0 or 0.5; a multiple of 1/32.

    Raises:
        ValueError: The size or the width is not valid.
    """
    side = picture_side(size) // 2
    width = number("width", width, "a positive multiple of 1/32", lambda value: value > 0 and value * 32 % 1 == 0)
    channels = round(32 * width)
    layers = [conv_shape("conv1", 2 * side, 3, 3, channels, stride=2)]
    for index, (filters, stride) in enumerate(_PAIRS, 1):
        filters = round(filters * width)
        layers.append(conv_shape(f"dw{index}", side, 3, channels, channels, stride=stride, groups=channels))
        side //= stride
        layers.append(conv_shape(f"pw{index}", side, 1, channels, filters))
        channels = filters
    layers.append(LayerShape("fc", (channels, 1000), (channels,)))
    weights = {layer.name: 1.0 for layer in layers}
    weights |= {f"pw{index}": density for index, density in enumerate(_POINTWISE_WEIGHTS, 1)}
    activations = {layer.name: _ACTIVATIONS for layer in layers} | {"conv1": 1.0}
    assumed = f"input activations of {_ACTIVATIONS}, a picture without zeros"
    table = DensityTable("SparseML's pruned MobileNetV1 (weights)", "", assumed, weights, activations)
    return Network("mobilenet_v1", _SOURCE, tuple(layers), {"sparseml": table})
