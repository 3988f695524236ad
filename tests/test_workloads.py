"""Workloads: published shapes and densities, masks from seeds, masks from files."""

import pathlib
import zipfile

import numpy as np
import pytest

from phantom_jax import Phantom2D, simulate, workloads
from phantom_jax.workloads.synthetic import iid_mask
from tests import cases
from tests.reference import scalar

REAL_MASKS = pathlib.Path(__file__).parents[2] / "shared/data/mobilenet_v1_050_128_masks.npz"
needs_real_masks = pytest.mark.skipif(not REAL_MASKS.exists(), reason="the masks of a real MobileNet are not here")


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
    whole = iid_mask((1001,), 0.5, seed=0, stream=0)
    monkeypatch.setattr("phantom_jax.workloads.synthetic._DRAWS", 10)
    np.testing.assert_array_equal(iid_mask((1001,), 0.5, seed=0, stream=0), whole)


def test_vgg16_is_the_published_network() -> None:
    network = workloads.vgg16()
    assert len(network) == 16
    shapes = [(layer.name, layer.weights, layer.activations) for layer in network._layers]
    assert shapes[0] == ("conv1_1", (3, 3, 3, 64), (224, 224, 3))
    assert shapes[9] == ("conv4_3", (3, 3, 512, 512), (28, 28, 512))
    assert shapes[13] == ("fc6", (25088, 4096), (25088,))
    weights = [round(100 * layer.weight_density) for layer in network._layers]
    inputs = [round(100 * layer.activation_density) for layer in network._layers]
    # Han et al. 2015; inputs are the outputs of the layer before, and the picture.
    assert weights == [58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36, 4, 4, 23]
    assert inputs == [100, 53, 89, 80, 81, 68, 70, 64, 51, 45, 34, 32, 29, 19, 38, 42]


def test_vgg16_takes_published_macs() -> None:
    """15.47 G multiplications at 224x224, biases and pooling left out."""
    macs = sum(layer.positions * layer.reduction * layer.filters for layer in workloads.vgg16())
    assert macs == 15_470_264_320


def test_layers_are_drawn_anew_for_each_image_and_seed() -> None:
    layer = workloads.vgg16(seed=3, images=2)[15]
    assert layer.activations.shape == (2, 4096)
    assert not np.array_equal(layer.activations[0], layer.activations[1])
    np.testing.assert_array_equal(layer.weights, workloads.vgg16(seed=3)[15].weights)
    assert not np.array_equal(layer.weights, workloads.vgg16(seed=4)[15].weights)
    np.testing.assert_array_equal(workloads.vgg16(seed=3)[-1].weights, layer.weights)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "a", 1 << 64])
def test_bad_seeds(seed) -> None:
    with pytest.raises(ValueError, match=r"^seed must be "):
        workloads.vgg16(seed=seed)


@pytest.mark.parametrize("images", [0, 1.5, True])
def test_bad_images(images) -> None:
    with pytest.raises(ValueError, match=r"^images must be a positive integer, got "):
        workloads.vgg16(images=images)


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
