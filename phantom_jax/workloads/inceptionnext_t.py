"""InceptionNeXt-T: a modern network with 3x3, 1x11 and 11x1 depthwise convolutions on parts of its channels."""

from phantom_jax.workloads.network import LayerShape, Network, conv_shape, picture_side, uniform_table

_SOURCE = "Yu et al., InceptionNeXt: When Inception Meets ConvNeXt, arXiv:2303.16900, variant T"
_STAGES = ((3, 96, 4), (3, 192, 4), (9, 384, 4), (3, 768, 3))  # blocks, channels, expansion of the MLP
_BRANCH = 8  # each depthwise branch takes an eighth of the channels, the rest pass
_BAND = 11


def inceptionnext_t(size: int = 224) -> Network:
    """Returns InceptionNeXt-T. Density table: `assumed`, 0.2 for weights and 1 for activations.

    Args:
        size: Side of the input picture, a multiple of 32.

    Raises:
        ValueError: The size is not valid.
    """
    side, channels = picture_side(size), 3
    layers = []
    for stage, (blocks, width, expansion) in enumerate(_STAGES, 1):
        patch = 4 if stage == 1 else 2
        layers.append(
            conv_shape("stem" if stage == 1 else f"s{stage}_down", side, patch, channels, width, stride=patch)
        )
        side, channels = side // patch, width
        branch = channels // _BRANCH
        for block in range(1, blocks + 1):
            name = f"s{stage}b{block}"
            for suffix, kernel in (("dw_hw", (3, 3)), ("dw_w", (1, _BAND)), ("dw_h", (_BAND, 1))):
                layers.append(conv_shape(f"{name}_{suffix}", side, kernel, branch, branch, groups=branch))
            layers.append(conv_shape(f"{name}_fc1", side, 1, channels, expansion * channels))
            layers.append(conv_shape(f"{name}_fc2", side, 1, expansion * channels, channels))
    layers.append(LayerShape("head_fc1", (channels, 3 * channels), (channels,)))
    layers.append(LayerShape("head_fc2", (3 * channels, 1000), (3 * channels,)))
    why = " (normalization and GELU leave no zeros)"
    return Network("inceptionnext_t", _SOURCE, tuple(layers), {"assumed": uniform_table(tuple(layers), 0.2, 1.0, why)})
