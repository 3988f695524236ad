"""Workloads: published shapes and densities, masks from seeds, masks from files."""

import hashlib
import math
import pathlib
import warnings
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from phantom_jax import Layer, Phantom2D, simulate, workloads
from phantom_jax.random import Draws
from phantom_jax.workloads import LayerShape, Network, SyntheticWorkload
from phantom_jax.workloads.masks import beta_densities
from tests import cases
from tests.reference import scalar

REAL_MASKS = pathlib.Path(__file__).parents[3] / "shared/data/mobilenet_v1_050_128_masks.npz"
needs_real_masks = pytest.mark.skipif(not REAL_MASKS.exists(), reason="the masks of a real MobileNet are not here")


def iid_mask(shape: tuple[int, ...], density: float, seed: int, stream: int) -> np.ndarray:
    return Draws(seed, stream).bits(shape, density)


def philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 in scalar Python (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011)."""
    word = (1 << 64) - 1
    c, (k0, k1) = [counter, 0, 0, 0], key
    for _ in range(10):
        first, second = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [second >> 64 ^ c[1] ^ k0, second & word, first >> 64 ^ c[3] ^ k1, first & word]
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & word, k1 + 0xBB67AE8584CAA73B & word
    return c


def test_masks_come_from_the_named_generator() -> None:
    numbers = [number for counter in range(1, 6) for number in philox(counter, (7, 2))]
    halves = [half for number in numbers for half in (number & 0xFFFFFFFF, number >> 32)]
    for density in (0.3, 0.5):
        expected = [half < round(density * 2**32) for half in halves]
        assert iid_mask((40,), density, seed=7, stream=2).tolist() == expected


def test_masks_are_the_same_for_the_same_seed_alone() -> None:
    mask = iid_mask((1000, 333), 0.3, seed=7, stream=2)
    np.testing.assert_array_equal(mask, iid_mask((1000, 333), 0.3, seed=7, stream=2))
    assert not np.array_equal(mask, iid_mask((1000, 333), 0.3, seed=8, stream=2))
    assert not np.array_equal(mask, iid_mask((1000, 333), 0.3, seed=7, stream=3))


@pytest.mark.parametrize("density", [0.0, 0.04, 0.5, 1.0])
def test_masks_have_their_density(density: float) -> None:
    mask = iid_mask((3000, 999), density, seed=0, stream=0)
    deviation = np.sqrt(density * (1 - density) / mask.size)
    assert abs(mask.mean() - density) <= 5 * deviation


def test_masks_of_many_draws_continue_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = iid_mask((77, 13), 0.5, seed=0, stream=0)
    monkeypatch.setattr("phantom_jax.random._DRAWS", 10)
    np.testing.assert_array_equal(iid_mask((77, 13), 0.5, seed=0, stream=0), whole)


def macs(shape: LayerShape) -> int:
    """Dense MACs of a layer by its definition, biases left out."""
    if len(shape.weights) == 2:
        return math.prod(shape.weights)
    return empty(shape).positions * math.prod(shape.weights)


def empty(shape: LayerShape) -> Layer:
    """Returns a convolution of zeros that take no memory."""
    weights, activations = (np.broadcast_to(False, drawn) for drawn in (shape.weights, (1, *shape.activations)))
    return Layer.conv(weights, activations, **shape.geometry)


@pytest.mark.parametrize(
    ("network", "layers", "total", "weights"),
    [
        # Published, for one picture: VGG16 15.47 G MACs and 138 M weights (Simonyan and Zisserman); MobileNetV1 569 M
        # and 4.2 M, at half width and 128x128 49 M and 1.3 M (Howard et al., tables 8 to 10); ResNet-50 4.09 G and
        # 25.5 M, with stride 2 in the 3x3 convolutions; InceptionNeXt-T 4.2 G and 28 M (Yu et al., table 2); AlexNet
        # 724 M and 61 M (Sze et al., Efficient Processing of Deep Neural Networks, 2017, table 2); GoogLeNet 7.0 M
        # weights (the same), and MACs below.
        # MACs are multiplications of convolutions and fully connected layers.
        (workloads.vgg16(), 16, 15_470_264_320, 138_344_128),
        (workloads.mobilenet_v1(), 28, 568_740_352, 4_209_088),
        (workloads.mobilenet_v1(size=128, width=0.5), 28, 49_160_192, 1_319_648),
        (workloads.resnet50(), 54, 4_089_184_256, 25_502_912),
        (workloads.inceptionnext_t(), 96, 4_188_634_272, 27_991_620),
        (workloads.alexnet(), 8, 724_406_816, 60_954_656),
        (workloads.googlenet(), 58, 1_582_671_872, 6_990_272),
    ],
)
def test_networks_have_published_sizes(network: Network, layers: int, total: int, weights: int) -> None:
    assert len(network.layers) == layers
    assert sum(macs(shape) for shape in network.layers) == total
    assert sum(math.prod(shape.weights) for shape in network.layers) == weights
    assert len({shape.name for shape in network.layers}) == layers
    for table in network.tables.values():
        assert table.weights.keys() == table.activations.keys() <= {shape.name for shape in network.layers}
        assert all(0 < density <= 1 for density in (*table.weights.values(), *table.activations.values()))


def test_layers_of_alexnet_have_the_published_macs() -> None:
    """Han et al. 2015, table 4, in millions of operations, two to a MAC."""
    published = [211, 448, 299, 224, 150, 75, 34, 8]
    assert [round(2 * macs(shape) / 1e6) for shape in workloads.alexnet().layers] == published


def test_modules_of_googlenet_have_the_published_macs() -> None:
    """Szegedy et al., table 1, in millions. Two of its rows are not what their shapes give: conv1 (34), 5a (54)."""
    published = {"3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5b": 71}
    shapes = workloads.googlenet().layers
    for module, millions in published.items():
        total = sum(macs(shape) for shape in shapes if shape.name.startswith(f"inception_{module}_"))
        assert total / 1e6 == pytest.approx(millions, abs=0.7)
    assert round(sum(macs(shape) for shape in shapes if shape.name.startswith("conv2")) / 1e6) == 360
    assert round(macs(shapes[-1]) / 1e6) == 1


@pytest.mark.parametrize("name", workloads.NETWORKS)
def test_each_layer_reads_what_another_wrote(name: str) -> None:
    """A layer's input has the sides and channels of some layer's output before it, pooled or concatenated or not."""
    shapes = workloads.NETWORKS[name]().layers
    sides, channels = {shapes[0].activations[0]}, {shapes[0].activations[-1]}
    for shape in shapes:
        assert any(math.prod(shape.activations) % count == 0 for count in channels)
        if len(shape.weights) > 2:
            assert shape.activations[0] in sides | {side // 2 for side in sides}
            sides.add(empty(shape).output_shape[0])
        channels.add(shape.weights[-1])


def test_densities_of_vgg16_are_the_published_ones() -> None:
    han, scnn = (workloads.vgg16().tables[name] for name in ("han", "scnn"))
    in_per_cent = [
        [round(100 * x) for x in densities] for densities in (han.weights.values(), han.activations.values())
    ]
    assert in_per_cent[0] == [58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36, 4, 4, 23]
    assert in_per_cent[1] == [100, 53, 89, 80, 81, 68, 70, 64, 51, 45, 34, 32, 29, 19, 38, 42]
    assert len(scnn.weights) == 13
    assert (scnn.weights["conv5_1"], scnn.activations["conv5_1"]) == (0.35, 0.39)


def test_densities_of_mobilenet() -> None:
    table = workloads.mobilenet_v1().tables["sparseml"]
    pointwise = [table.weights[f"pw{index}"] for index in range(1, 14)]
    assert pointwise == [1.0, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1]
    assert {density for name, density in table.weights.items() if name[:2] != "pw"} == {1.0}
    assert "0.7" in table.assumed_activations


def test_densities_of_alexnet_are_the_published_ones() -> None:
    table = workloads.alexnet().tables["han"]
    assert list(table.weights.values()) == [0.84, 0.38, 0.35, 0.37, 0.37, 0.09, 0.09, 0.25]
    assert list(table.activations.values()) == [1.0, 0.88, 0.52, 0.37, 0.40, 0.34, 0.36, 0.40]


def test_densities_of_googlenet_lie_between_the_published_ones() -> None:
    network = workloads.googlenet()
    all_modules, published = network.tables["interpolated"], network.tables["scnn"]
    assert (len(all_modules.weights), len(published.weights)) == (58, 12)
    assert published.weights["inception_3a_5x5"] == 0.35
    assert published.activations["inception_5b_pool_proj"] == 0.57
    for name, density in published.weights.items():
        assert (all_modules.weights[name], all_modules.activations[name]) == (density, published.activations[name])
    assert all_modules.weights["inception_4c_1x1"] == pytest.approx((0.38 + 0.32) / 2)  # the middle of nine modules
    assert "assumed, not published: weights of modules 3b to 5a" in SyntheticWorkload(network).notes[0]


def test_a_table_that_leaves_layers_out_says_so() -> None:
    workload = SyntheticWorkload(workloads.vgg16(), densities="scnn")
    assert len(workload) == 13
    assert workload.notes == ("vgg16: the density table scnn leaves out fc6, fc7, fc8.",)
    assert len(SyntheticWorkload(workloads.vgg16(), densities="scnn", weight_density=0.5, activation_density=1)) == 16


SMALL = workloads.Network(
    "small",
    "none",
    (
        workloads.LayerShape("conv", (3, 3, 64, 96), (20, 20, 64)),
        workloads.LayerShape("depthwise", (3, 3, 1, 96), (20, 20, 96), {"feature_group_count": 96}),
        workloads.LayerShape("fc", (250, 300), (250,)),
    ),
    {
        "assumed": workloads.DensityTable(
            "none", "", "", *({"conv": 0.3, "depthwise": 1.0, "fc": 0.1} for _ in range(2))
        )
    },
)


def test_masks_have_the_densities_of_the_table_or_of_the_override() -> None:
    cases: list[tuple[dict, tuple[float, float]]] = [
        ({}, (0.3, 0.3)),
        ({"weight_density": 0.6, "activation_density": 0.9}, (0.6, 0.9)),
    ]
    for options, expected in cases:
        conv = SyntheticWorkload(SMALL, **options)[0]
        for mask, density in zip((conv.weights, conv.activations), expected, strict=True):
            assert abs(mask.mean() - density) < 5 * np.sqrt(density * (1 - density) / mask.size)


def test_layers_are_drawn_anew_for_each_image_seed_and_layer() -> None:
    layer = SyntheticWorkload(SMALL, seed=3, images=2)[2]
    assert layer.activations.shape == (2, 250)
    assert not np.array_equal(layer.activations[0], layer.activations[1])
    np.testing.assert_array_equal(layer.weights, SyntheticWorkload(SMALL, seed=3)[-1].weights)
    assert not np.array_equal(layer.weights, SyntheticWorkload(SMALL, seed=4)[2].weights)


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.3, 0.23), (0.7, 0.77), (0.1, 0.5), (0.5, 0.0), (1.0, 0.9), (0.01, 0.1), (0.9, 0.01)]
)
def test_beta_densities_have_mean_and_spread(mean: float, spread: float) -> None:
    densities = beta_densities(Draws(0, 0), mean, spread, 20_000)
    deviation = spread * np.sqrt(mean * (1 - mean))
    assert abs(densities.mean() - mean) <= 5 * deviation / np.sqrt(20_000)
    assert abs(densities.std() - deviation) <= 0.03 * deviation
    assert ((densities >= 0) & (densities <= 1)).all()


def test_channel_masks_vary_over_filters_and_channels() -> None:
    options: dict = {"weight_density": 0.4, "activation_density": 0.6, "weight_spread": 0.5, "activation_spread": 0.8}
    conv = SyntheticWorkload(SMALL, mask_kind="channel", **options)[0]
    filters, channels = conv.weights.mean((0, 1, 2)), conv.activations.mean((0, 1, 2))
    assert abs(filters.std() - 0.5 * np.sqrt(0.4 * 0.6)) < 0.06
    assert abs(channels.std() - 0.8 * np.sqrt(0.6 * 0.4)) < 0.08
    assert SyntheticWorkload(SMALL, **options)[0].weights.mean((0, 1, 2)).std() < 0.04


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (4, 4), (3, 7), (1, 1)])
def test_n_of_m_is_exact(n: int, m: int) -> None:
    for layer in SyntheticWorkload(SMALL, weight_pattern=f"{n}:{m}"):
        channels = layer.weights.shape[-2]
        for start in range(0, channels, m):
            group = layer.weights[..., start : start + m, :]
            assert (group.sum(-2) == min(n, group.shape[-2])).all()
    positions = SyntheticWorkload(SMALL, weight_pattern="1:4")[0].weights.reshape(9, 16, 4, 96).argmax(2)
    np.testing.assert_allclose(np.bincount(positions.reshape(-1)) / positions.size, 0.25, atol=0.02)


def test_whole_kernels_and_whole_channels() -> None:
    kernel = SyntheticWorkload(SMALL, weight_pattern="kernel")[0].weights
    assert set(kernel.sum((0, 1)).reshape(-1).tolist()) == {0, 9}
    assert abs(kernel.mean() - 0.3) < 5 * np.sqrt(0.21 / (64 * 96))
    channel = SyntheticWorkload(SMALL, weight_pattern="channel")[0].weights
    assert set(channel.sum((0, 1, 3)).tolist()) == {0, 9 * 96}
    assert abs(channel.mean() - 0.3) < 5 * np.sqrt(0.21 / 64)
    depthwise = SyntheticWorkload(SMALL, weight_density=0.3, activation_density=1, weight_pattern="channel")[1].weights
    assert abs(depthwise.mean() - 0.3) < 5 * np.sqrt(0.21 / 96)  # a channel of each group: whole filters


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        ({}, ("weights of 0.2", "input activations of 0.5")),
        ({"weight_density": 0.1}, ("input activations of 0.5",)),
        ({"weight_pattern": "2:4"}, ("input activations of 0.5",)),
        ({"activation_density": 0.1}, ("weights of 0.2",)),
        ({"weight_density": 0.1, "activation_density": 0.1}, ()),
    ],
)
def test_what_is_assumed_is_noted_where_it_is_used(options: dict, noted: tuple[str, ...]) -> None:
    workload = SyntheticWorkload(workloads.resnet50(), **options)
    assumed = workload.provenance()["densities_assumed"]
    assert len(assumed) == len(noted)
    assert all(part.startswith(start) for part, start in zip(assumed, noted, strict=True))
    assert len(workload.notes) == bool(noted)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "977d25d7c5a03ce3"),
        ({"mask_kind": "channel"}, "f34bfd615d3bb107"),
        ({"weight_pattern": "2:4"}, "1e1e08cfd15fbeac"),
        ({"weight_pattern": "kernel"}, "fe2e31096a99d1ba"),
        ({"weight_pattern": "channel"}, "17114eb9eff0ce03"),
    ],
)
def test_masks_of_a_seed_never_change(options: dict, expected: str) -> None:
    """Golden: SHA-256 over the packed masks of all layers, as first made with NumPy 2.4 and SciPy 1.17 on x86-64."""
    digest = hashlib.sha256()
    for layer in SyntheticWorkload(SMALL, seed=1, **options):
        digest.update(np.packbits(layer.weights).tobytes() + np.packbits(layer.activations).tobytes())
    assert digest.hexdigest()[:16] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"seed": seed}, "seed must be ") for seed in (-1, 1.5, True, "a", 1 << 64)),
        *(({"images": images}, "images must be a positive integer, got ") for images in (0, 1.5, True)),
        ({"densities": "hans"}, "densities must be one of assumed, got 'hans'"),
        ({"mask_kind": "block"}, "mask_kind must be one of iid, channel, got 'block'"),
        *(({"weight_density": x}, "weight_density must be a number from 0 to 1, got ") for x in (-0.1, 1.1, "x", True)),
        ({"activation_density": float("nan")}, "activation_density must be a number from 0 to 1, got nan"),
        ({"weight_spread": 1.0}, "weight_spread must be 0 or a number from 0.001 to below 1, got 1.0"),
        ({"activation_spread": -0.1}, "activation_spread must be 0 or a number from 0.001 to below 1, got -0.1"),
        ({"weight_spread": 1e-9}, "weight_spread must be 0 or a number from 0.001 to below 1, got 1e-09"),
        (
            {"weight_pattern": "2:4", "weight_density": 0.9},
            "weight_density must be null where weight_pattern is 2:4, got",
        ),
        ({"weight_pattern": "5:4"}, "weight_pattern must be N:M with N from 1 to M, got '5:4'"),
        ({"weight_pattern": "0:4"}, "weight_pattern must be N:M with N from 1 to M, got '0:4'"),
        ({"weight_pattern": "blocks"}, "weight_pattern must be kernel, channel, N:M .* got 'blocks'"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticWorkload(SMALL, **options)


@pytest.mark.parametrize("name", workloads.NETWORKS)
@pytest.mark.parametrize("size", [0, 100, 224.0, "a"])
def test_bad_sizes(name: str, size) -> None:
    with pytest.raises(ValueError, match="size must be "):
        workloads.NETWORKS[name](size=size)


@pytest.mark.parametrize("width", [0, -1, 0.3, "wide", True])
def test_bad_widths(width) -> None:
    with pytest.raises(ValueError, match="width must be a positive multiple of 1/32, got "):
        workloads.mobilenet_v1(width=width)


def test_npz_by_the_naming_scheme(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "b_weights": rng.normal(size=(3, 3, 4, 6)) * (rng.random((3, 3, 4, 6)) < 0.5),
        "b_activations": rng.random((9, 9, 4)) < 0.5,  # without a batch axis
        "b_strides": 2,
        "b_padding": [[1, 0], [0, 1]],
        "a_weights": rng.random((3, 2, 6)) < 0.5,
        "a_activations": rng.random((1, 20, 4)) < 0.5,
        "a_feature_group_count": 2,
        "a_padding": "VALID",
        "a_kernel_dilation": [3],
        "fc_head_weights": rng.random((30, 5)) < 0.5,
        "fc_head_activations": rng.random(30) < 0.5,
        "history": np.arange(3),
    }
    np.savez_compressed(tmp_path / "my.npz", **arrays)
    workload = workloads.read_npz(tmp_path / "my.npz")
    assert [layer.name for layer in workload] == ["b", "a", "fc_head"]
    first, second, third = workload
    assert (first.strides, first.padding, first.output_shape) == ((2, 2), ((1, 0), (0, 1)), (4, 4))
    assert (second.feature_group_count, second.kernel_dilation, second.output_shape) == (2, (3,), (14,))
    assert (third.is_conv, third.activations.shape) == (False, (1, 30))
    np.testing.assert_array_equal(first.weights, arrays["b_weights"] != 0)
    assert workload.notes == ("my.npz: ignored 1 unknown arrays: history",)
    assert simulate(workload, Phantom2D()).cycles.shape == (1,)


def save(path: pathlib.Path, **arrays: object) -> pathlib.Path:
    np.savez(path, allow_pickle=True, **arrays)  # pyright: ignore[reportArgumentType]
    return path


def test_an_array_that_stands_in_the_file_twice_counts_once_as_numpy_reads_it(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "twice.npz", a_weights=np.ones((4, 3)), a_activations=np.ones((1, 4)), extra=np.ones(1))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of a name that is there
        for name, values in (("a_weights", np.eye(4, 3)), ("a_activations", np.eye(1, 4)), ("extra", np.ones(1))):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, values)
    workload = workloads.read_npz(path)
    assert workload.names == ["a"]
    with np.load(path) as file:
        np.testing.assert_array_equal(workload[0].weights, file["a_weights"] != 0)
    assert simulate(workload, Phantom2D()).layers[0].effectual_macs.tolist() == [1]
    assert workload.notes == (
        "twice.npz: a_weights, a_activations, extra stand there more than once; each is read once, as np.load does",
        "twice.npz: ignored 1 unknown arrays: extra",
    )


GOOD = {"x_weights": np.ones((1, 1, 2, 3)), "x_activations": np.ones((4, 4, 2))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "must hold arrays NAME_weights and NAME_activations, got nothing"),
        ({"w": np.ones(3)}, "must hold arrays NAME_weights and NAME_activations, got w"),
        ({"x_weights": np.ones((2, 3))}, "holds x_weights, but lacks the array x_activations"),
        ({**GOOD, "y_activations": np.ones(3)}, "holds y_activations, but lacks the array y_weights"),
        ({**GOOD, "x_activations": np.ones((4, 4, 3))}, "layer x: activations have 3 channels"),
        ({**GOOD, "x_activations": np.ones((4, 2))}, "layer x: activations must have 4 axes"),
        ({**GOOD, "x_weights": np.full((1, 1, 2, 3), np.nan)}, "layer x: weights must not hold NaN"),
        ({**GOOD, "x_strides": 1.5}, "layer x: strides must be a positive integer, got 1.5"),
        ({**GOOD, "x_padding": "same"}, "layer x: padding must be 'SAME', 'VALID', .* got 'same'"),
        ({**GOOD, "x_weights": np.array(["a"])}, "layer x: weights must be a boolean or numeric array, got dtype"),
        ({**GOOD, "x_weights": np.array([None, 1])}, "the array x_weights cannot be read: .*[Oo]bject arrays"),
        (
            {"x_weights": np.ones((2, 3)), "x_activations": np.ones(2), "x_strides": 1},
            "layer x: strides do not apply to a dense layer",
        ),
    ],
)
def test_bad_npz_contents(tmp_path: pathlib.Path, arrays: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workloads.read_npz(save(tmp_path / "bad.npz", **arrays))


@pytest.mark.parametrize(
    ("misspelled", "near"),
    [
        ("x_stride", "x_strides"),
        ("X_Strides", "x_strides"),
        ("x.strides", "x_strides"),
        ("xstrides", "x_strides"),
        ("x_window_strides", "x_strides"),
        ("x_paddings", "x_padding"),
        ("x_pads", "x_padding"),
        ("x_pad", "x_padding"),
        ("x_output_padding", "x_padding"),
        ("x_dilation", "x_input_dilation, x_kernel_dilation"),
        ("x_lhs_dilation", "x_input_dilation, x_kernel_dilation"),
        ("x_kernel_dilations", "x_kernel_dilation"),
        ("x_groups", "x_feature_group_count"),
        ("x_group_count", "x_feature_group_count"),
    ],
)
def test_an_array_whose_name_is_near_an_option_of_a_layer_is_refused(
    tmp_path: pathlib.Path, misspelled: str, near: str
) -> None:
    path = save(tmp_path / "near.npz", **GOOD, **{misspelled: 2})
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message holds a path
        workloads.read_npz(path)
    assert str(error.value) == (
        f"{path} holds {misspelled}, which is not an option of the layer x, but is near {near}. Rename or remove it."
    )


@pytest.mark.parametrize("lost", ["y_strides", "y_kernel_dilation", "padding"])
def test_an_option_without_a_layer_is_refused(tmp_path: pathlib.Path, lost: str) -> None:
    with pytest.raises(ValueError, match=f"holds {lost}, an option, but no layer of that name; the layers are x"):
        workloads.read_npz(save(tmp_path / "lost.npz", **GOOD, **{lost: 2}))


def test_a_pair_of_arrays_that_is_near_a_layer_is_refused(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "pair.npz", **GOOD, **{"y.weight": np.ones((2, 3)), "y_activation": np.ones(2)})
    with pytest.raises(ValueError, match=r"holds y\.weight and y_activation; a layer y needs y_weights, y_activations"):
        workloads.read_npz(path)


def test_other_arrays_beside_those_of_a_layer_are_left_unread(tmp_path: pathlib.Path) -> None:
    others = ("bias", "x_bias", "x_output", "x_scan_pe_cycles", "x_loading", "x_path", "y_weight", "paid", "x_input")
    layer = {key.replace("x", "x_scan", 1): values for key, values in GOOD.items()}
    workload = workloads.read_npz(save(tmp_path / "my.npz", **GOOD, **layer, **dict.fromkeys(others, 1)))
    assert workload.names == ["x", "x_scan"]
    assert workload.notes == (f"my.npz: ignored {len(others)} unknown arrays: {', '.join(others)}",)


def test_bfloat16_is_read_back_as_what_it_was(tmp_path: pathlib.Path) -> None:
    weights = jnp.array([[0.0, -0.0, 1e-30], [-1.0, 3e38, -1e-40]], jnp.bfloat16)
    activations = jnp.array([0.0, 2.0], jnp.bfloat16)
    (layer,) = workloads.read_npz(save(tmp_path / "half.npz", x_weights=weights, x_activations=activations))
    np.testing.assert_array_equal(layer.weights, [[False, False, True], [True, True, True]])
    np.testing.assert_array_equal(layer.activations, [[False, True]])
    arrays = {"x_weights": weights.at[1, 0].set(jnp.nan), "x_activations": activations}
    with pytest.raises(ValueError, match="layer x: weights must not hold NaN, got 1 of them"):
        workloads.read_npz(save(tmp_path / "nan.npz", **arrays))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3b11fnuz", "float8_e5m2", "float8_e5m2fnuz", "int4"])
def test_types_that_the_file_does_not_tell_apart_are_refused_with_a_way_out(tmp_path: pathlib.Path, name: str) -> None:
    values = np.ones((2, 3)).astype(jnp.dtype(name))
    with pytest.raises(ValueError, match=r"the array x_weights .*x\.astype\(np\.float32\), or its mask, x != 0"):
        workloads.read_npz(save(tmp_path / "small.npz", x_weights=values, x_activations=np.ones(2)))


def test_bad_npz_files(tmp_path: pathlib.Path) -> None:
    good = save(tmp_path / "good.npz", **GOOD).read_bytes()
    for name, content, message in [
        ("garbage.npz", b"garbage", "of another format or truncated"),
        ("empty.npz", b"", "of another format or truncated"),
        ("truncated.npz", good[: len(good) // 2], "of another format or truncated"),
        ("flipped.npz", good.replace(np.ones(2).tobytes(), np.zeros(2).tobytes(), 1), "x_weights cannot be read"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            workloads.read_npz(tmp_path / name)
    with pytest.raises(ValueError, match="which is missing"):
        workloads.read_npz(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="which is not a file"):
        workloads.read_npz(tmp_path)
    np.save(tmp_path / "single.npy", np.ones(3))
    with pytest.raises(ValueError, match="of another format or truncated"):
        workloads.read_npz(tmp_path / "single.npy")
    for path in (None, 3, "", "~nobody-of-this-name/x.npz", "a" * 5000, "a\0b"):
        with pytest.raises(ValueError, match=r"path must name an \.npz file, got "):
            workloads.read_npz(path)  # pyright: ignore[reportArgumentType]
    compression = good.find(b"PK\1\2") + 10  # of the first member, in the central directory
    (tmp_path / "strange.npz").write_bytes(good[:compression] + b"\x63" + good[compression + 1 :])
    with pytest.raises(ValueError, match="x_weights cannot be read"):
        workloads.read_npz(tmp_path / "strange.npz")
    with zipfile.ZipFile(tmp_path / "texts.npz", "w") as file:
        file.writestr("x_weights.npy", "no array")
        file.writestr("x_activations.npy", "no array")
    with pytest.raises(ValueError, match="the array x_weights cannot be read"):
        workloads.read_npz(tmp_path / "texts.npz")


@needs_real_masks
def test_a_real_layer_equals_the_scalar_reference() -> None:
    workload = workloads.read_npz(REAL_MASKS)
    assert [layer.name for layer in workload] == ["L07", "L09", "L13", "L19", "L21", "L23", "L25", "L27"]
    assert "L07_eyeriss_v2_pe_cycles" in workload.notes[0]
    expected = scalar.simulate(cases.problem(workload[2], 0), scalar.Arch())
    got = simulate(workload[2], Phantom2D()).layers[0]
    assert {name: int(slots[0]) for name, slots in got.stack.items()} == expected["stack"]
    assert (int(got.cycles[0]), got.dense_cycles) == (expected["cycles"], expected["dense_cycles"])


@needs_real_masks
@pytest.mark.slow
def test_all_real_layers_equal_the_scalar_reference() -> None:
    for layer in workloads.read_npz(REAL_MASKS):
        expected = scalar.simulate(cases.problem(layer, 0), scalar.Arch())
        got = simulate(layer, Phantom2D()).layers[0]
        assert {name: int(slots[0]) for name, slots in got.stack.items()} == expected["stack"]
        assert int(got.cycles[0]) == expected["cycles"]
