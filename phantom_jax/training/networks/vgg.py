"""Networks in the manner of VGG: 3x3 convolutions, halved by pooling, and dense layers (arXiv:1409.1556)."""

from collections.abc import Sequence

import jax
from flax import nnx

from phantom_jax.checks import integer

_LEAST_SIDE = 7  # of feature maps of the small network


class VGG(nnx.Module):
    """Stages of 3x3 convolutions, the first of them with 2x2 max pooling after each, then dense layers; ReLU between.

    Hidden dense layers read all positions; without them, the last one reads the mean over positions. Layers are
    attributes: `conv1_1`, `conv1_2`, ..., then `fc` with a number that counts on from the stages.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        stages: Sequence[Sequence[int]],
        pools: int,
        hidden: Sequence[int],
        batch_norm: bool,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes the layers.

        Args:
            image_shape: Height, width and channels of a picture.
            classes: Logits.
            stages: Filters of each convolution, by stage.
            pools: Stages that are followed by pooling.
            hidden: Features of each dense layer before the last.
            batch_norm: Whether a batch normalization follows each convolution, which then has no bias.
            rngs: Where initial weights come from.

        Raises:
            ValueError: The picture is too small to be halved so often.
        """
        height, width, channels = image_shape
        if min(height, width) < 1 << pools:
            raise ValueError(
                f"image_shape must have sides of {1 << pools} or more, which are halved {pools} times, got "
                f"{tuple(image_shape)}."
            )
        self.pools, self.batch_norm, self.mean = pools, batch_norm, not hidden
        self.stages = tuple(
            tuple(f"conv{stage}_{index}" for index in range(1, len(filters) + 1))
            for stage, filters in enumerate(stages, 1)
        )
        init = nnx.initializers.he_normal()
        for names, filters in zip(self.stages, stages, strict=True):
            for name, features in zip(names, filters, strict=True):
                conv = nnx.Conv(channels, features, (3, 3), use_bias=not batch_norm, kernel_init=init, rngs=rngs)
                setattr(self, name, conv)
                if batch_norm:
                    setattr(self, f"{name}_norm", nnx.BatchNorm(features, momentum=0.9, rngs=rngs))
                channels = features
        if hidden:
            channels *= (height >> pools) * (width >> pools)
        features = (*hidden, classes)
        self.dense = tuple(f"fc{index}" for index, _ in enumerate(features, len(stages) + 1))
        for name, count in zip(self.dense, features, strict=True):
            setattr(self, name, nnx.Linear(channels, count, kernel_init=init, rngs=rngs))
            channels = count

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the logits `[B, classes]` of images `[B, H, W, C]`."""
        values = images
        for stage, names in enumerate(self.stages):
            for name in names:
                values = getattr(self, name)(values)
                if self.batch_norm:
                    values = getattr(self, f"{name}_norm")(values)
                values = nnx.relu(values)
            if stage < self.pools:
                values = _halved(values)
        values = values.mean((1, 2)) if self.mean else values.reshape(len(values), -1)
        for name in self.dense[:-1]:
            values = nnx.relu(getattr(self, name)(values))
        return getattr(self, self.dense[-1])(values)


def vgg16(image_shape: tuple[int, int, int], classes: int, rngs: nnx.Rngs) -> VGG:
    """Returns VGG16 (configuration D): 13 convolutions and 3 dense layers, for pictures of 224x224 at first."""
    stages = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    return VGG(image_shape, classes, stages, pools=5, hidden=(4096, 4096), batch_norm=False, rngs=rngs)


def vgg_small(
    image_shape: tuple[int, int, int],
    classes: int,
    rngs: nnx.Rngs,
    stages: Sequence[Sequence[int]] = ((16,), (32, 32), (64, 64)),
) -> VGG:
    """Returns a VGG-like network with batch normalization, of 5 convolutions and a dense layer: 66,000 weights.

    Stages but the last are followed by pooling as long as sides of 7 are left: fewer positions than a block has masks
    would make the proxy (`phantom_jax.expected_cycles`) slow.

    Raises:
        ValueError: `stages` is empty, holds an empty one, or a number of filters that is not a positive integer.
    """
    if not isinstance(stages, Sequence) or not stages or not all(isinstance(of, Sequence) and of for of in stages):
        raise ValueError(f"stages must be a list of lists of filters, none of them empty, got {stages!r}.")
    for stage, filters in enumerate(stages):
        for index, count in enumerate(filters):
            integer(f"stages[{stage}][{index}]", count, minimum=1)
    pools = 0
    while pools < len(stages) - 1 and min(image_shape[:2]) >> pools + 1 >= _LEAST_SIDE:
        pools += 1
    return VGG(image_shape, classes, stages, pools, hidden=(), batch_norm=True, rngs=rngs)


def _halved(values: jax.Array) -> jax.Array:
    """Max pooling of 2x2, without an odd last row or column; its gradient is several times as fast as XLA's."""
    batch, height, width, channels = values.shape
    even = values[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
