"""GoogLeNet: 3 convolutions, 9 inception modules of 6 convolutions each, a fully connected layer."""

from phantom_jax.workloads.network import DensityTable, LayerShape, Network, conv_shape, picture_side

_SOURCE = "Szegedy et al., arXiv:1409.4842, table 1, without the auxiliary classifiers"
_PARTS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
_MODULES = {  # filters of the parts; pooling halves the sides after 3b and 4e
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_BEFORE_POOLING = ("3b", "4e")
# As public simulators of SCNN (Parashar et al., ISCA 2017) set the parts of the first and the last module: per cent of
# weights, and of input activations.
_SCNN = {
    "3a": ((38, 42, 45, 36, 35, 43), (71, 71, 67, 71, 77, 96)),
    "5b": ((32, 33, 37, 33, 36, 32), (31, 31, 30, 31, 46, 57)),
}


def googlenet(size: int = 224) -> Network:
    """Returns GoogLeNet, of 58 layers.

    Density tables: `interpolated`; `scnn` for the convolutions of modules 3a and 5b alone. These are published, and
    `interpolated` assumes the others to lie between them.

    Args:
        size: Side of the input picture, a multiple of 32.

    Raises:
        ValueError: The size is not valid.
    """
    side = picture_side(size) // 4
    layers = [
        conv_shape("conv1", size, 7, 3, 64, stride=2, padding=3),
        conv_shape("conv2_reduce", side, 1, 64, 64),
        conv_shape("conv2", side, 3, 64, 192),
    ]
    side, channels = side // 2, 192
    for module, filters in _MODULES.items():
        ones, threes_reduced, threes, fives_reduced, fives, projected = filters
        inputs = (channels, channels, threes_reduced, channels, fives_reduced, channels)
        for part, kernel, read, made in zip(_PARTS, (1, 1, 3, 1, 5, 1), inputs, filters, strict=True):
            layers.append(conv_shape(f"inception_{module}_{part}", side, kernel, read, made))
        channels = ones + threes + fives + projected
        side = side // 2 if module in _BEFORE_POOLING else side
    layers.append(LayerShape("fc", (channels, 1000), (channels,)))
    source = "public simulators of SCNN (Parashar et al. 2017)"
    assumed = (
        "{} of modules 3b to 5a, part by part on a line from those of 3a to those of 5b; layers before and after the "
        "modules like the 1x1 parts of 3a and 5b"
    )
    return Network("googlenet", _SOURCE, tuple(layers), {
        "interpolated": DensityTable(
            f"{source}, modules 3a and 5b",
            assumed.format("weights"),
            assumed.format("input activations") + ", a picture without zeros",
            _interpolated(0),
            _interpolated(1) | {"conv1": 1.0},
        ),
        "scnn": DensityTable(source, "", "", _published(0), _published(1)),
    })  # fmt: skip


def _published(which: int) -> dict[str, float]:
    """Returns the densities of weights (0) or input activations (1) that are published."""
    return {
        f"inception_{module}_{part}": value / 100
        for module, densities in _SCNN.items()
        for part, value in zip(_PARTS, densities[which], strict=True)
    }


def _interpolated(which: int) -> dict[str, float]:
    """Returns the densities of all layers; a module's by its number on a line between the first and the last."""
    first, last = (_SCNN[module][which] for module in ("3a", "5b"))
    before, after = first[0] / 100, last[0] / 100
    return {"conv1": before, "conv2_reduce": before, "conv2": before, "fc": after} | {
        f"inception_{module}_{part}": (start + (stop - start) * number / (len(_MODULES) - 1)) / 100
        for number, module in enumerate(_MODULES)
        for part, start, stop in zip(_PARTS, first, last, strict=True)
    }
