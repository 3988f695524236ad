"""Networks in the manner of MobileNetV1: depthwise and pointwise convolutions in turn (arXiv:1704.04861)."""

from collections.abc import Sequence

import jax
from flax import nnx
from jax import lax

from phantom_jax.checks import integer
from phantom_jax.training.networks.depthwise import depthwise_conv

_LEAST_HALVED = 16  # side of pictures that the small network's first layer halves
_LEAST_SIDE = 4  # of its feature maps


class MobileNet(nnx.Module):
    """A 3x3 convolution, pairs of a depthwise and a pointwise one, the mean over positions, and a dense layer.

    Batch normalization and ReLU follow each convolution. Layers are attributes: `conv1`, `dw1`, `pw1`, ..., `fc`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        stem: tuple[int, int],
        pairs: Sequence[tuple[int, int]],
        rngs: nnx.Rngs,
    ) -> None:
        """Makes the layers.

        Args:
            image_shape: Height, width and channels of a picture.
            classes: Logits.
            stem: Filters and stride of the first convolution.
            pairs: Filters of the pointwise convolution and stride of the depthwise one, for each pair.
            rngs: Where initial weights come from.
        """
        channels = image_shape[-1]
        names = ["conv1"]
        self._add("conv1", channels, stem[0], 3, stem[1], 1, rngs)
        channels = stem[0]
        for index, (filters, stride) in enumerate(pairs, 1):
            self._add(f"dw{index}", channels, channels, 3, stride, channels, rngs)
            self._add(f"pw{index}", channels, filters, 1, 1, 1, rngs)
            names += [f"dw{index}", f"pw{index}"]
            channels = filters
        self.names: tuple[str, ...] = tuple(names)
        self.fc = nnx.Linear(channels, classes, rngs=rngs)

    def _add(
        self, name: str, channels: int, filters: int, kernel: int, stride: int, groups: int, rngs: nnx.Rngs
    ) -> None:
        conv = nnx.Conv(
            conv_general_dilated=depthwise_conv if groups > 1 else lax.conv_general_dilated,
            in_features=channels,
            out_features=filters,
            kernel_size=(kernel, kernel),
            strides=stride,
            feature_group_count=groups,
            use_bias=False,
            kernel_init=nnx.initializers.he_normal(),
            rngs=rngs,
        )
        setattr(self, name, conv)
        setattr(self, f"{name}_norm", nnx.BatchNorm(filters, momentum=0.9, rngs=rngs))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the logits `[B, classes]` of images `[B, H, W, C]`."""
        values = images
        for name in self.names:
            values = nnx.relu(getattr(self, f"{name}_norm")(getattr(self, name)(values)))
        return self.fc(values.mean((1, 2)))


def mobilenet_v1(image_shape: tuple[int, int, int], classes: int, rngs: nnx.Rngs) -> MobileNet:
    """Returns MobileNetV1: 28 layers, for pictures of 224x224 at first."""
    first = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
    pairs = (*first, *((512, 1),) * 5, (1024, 2), (1024, 1))
    return MobileNet(image_shape, classes, stem=(32, 2), pairs=pairs, rngs=rngs)


def mobilenet_small(
    image_shape: tuple[int, int, int],
    classes: int,
    rngs: nnx.Rngs,
    stem: int = 16,
    pairs: Sequence[tuple[int, int]] = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)),
) -> MobileNet:
    """Returns a MobileNet-like network of 12 layers and 37,000 weights.

    The first layer halves pictures of 16x16 or more, later ones as their strides say, as long as sides of 4 are left:
    fewer positions than a block has masks would make the proxy (`phantom_jax.expected_cycles`) slow.

    Raises:
        ValueError: `stem` is not a positive integer, or `pairs` is not a list of pairs of positive integers.
    """
    integer("stem", stem, minimum=1)
    if not isinstance(pairs, Sequence) or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"pairs must be a list of pairs of filters and a stride, got {pairs!r}.")
    for index, pair in enumerate(pairs):
        for name, value in zip(("filters", "stride"), pair, strict=True):
            integer(f"{name} of pairs[{index}]", value, minimum=1)
    side = min(image_shape[:2])
    first = 2 if side >= _LEAST_HALVED else 1
    side = -(-side // first)
    kept = []
    for filters, stride in pairs:
        stride = stride if -(-side // stride) >= _LEAST_SIDE else 1
        side = -(-side // stride)
        kept.append((filters, stride))
    return MobileNet(image_shape, classes, stem=(stem, first), pairs=kept, rngs=rngs)
