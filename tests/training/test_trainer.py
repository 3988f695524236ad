"""Training in phases: what ends a run, what it saves, and that it resumes as if it had not been stopped."""

import dataclasses
import errno
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from experiments.train.methods import LEARNERS
from phantom_jax import Phantom2D
from phantom_jax.sparsity import NM, CycleAware, GlobalMagnitude, MacAwareMagnitude, Method
from phantom_jax.training import Checkpoints, Phase, Settings, Trainer, evaluate
from phantom_jax.training.data import Splits, Subset
from phantom_jax.training.networks import vgg_small

ARCH = Phantom2D(rows=2, cols=2, pes=2, threads=2, lookahead=9, inter_balance=False)  # compiles sooner


def _images(seed: int, count: int) -> Subset:
    """Returns bright squares at the left or at the right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.random((count, 8, 8, 1)) * (rng.random((count, 8, 8, 1)) < 0.3)
    for image, label in zip(images, labels, strict=True):
        image[2:6, 4 * label : 4 * label + 3] = 1
    return Subset(images.astype(np.float32), labels.astype(np.int32))


SPLITS = Splits(_images(0, 64), _images(1, 16), _images(2, 32))
PHASES = {"dense": Phase(2, 1e-2), "sparse": Phase(2, 1e-2), "tune": Phase(2, 1e-2)}


def _settings(method: Method | None, **options: Any) -> Settings:
    return Settings(**{**PHASES, **options}, method=method, batch_size=16, calibrate_every=3, exact_images=8)


def _trainer(settings: Settings) -> Trainer:
    return Trainer(settings, lambda rngs: vgg_small((8, 8, 1), 2, rngs, stages=((4,), (8,))), SPLITS, ARCH)


class Log:
    """Remembers what is reported, and stops the run after a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.points: dict[int, Mapping[str, Any]] = {}
        self.stop = stop

    def __call__(self, figures: Mapping[str, Any], step: int) -> None:
        assert step not in self.points
        self.points[step] = figures
        if step == self.stop:
            raise KeyboardInterrupt


def _run(settings: Settings, directory: pathlib.Path, stop: int | None = None) -> tuple[Trainer, Log]:
    trainer, log = _trainer(settings), Log(stop)
    checkpoints = Checkpoints(directory, {"seed": settings.seed})
    notes: list[str] = []
    found = checkpoints.restore(notes.append)
    if found:
        trainer.restore(*found)
    try:
        trainer.run(log, lambda model: {"density": float(model.density())}, checkpoints, save_every=3)
    except KeyboardInterrupt:
        pass
    finally:
        checkpoints.close()
    return trainer, log


def _leaves(trainer: Trainer) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(trainer.model))]


@pytest.mark.parametrize("stop", [14, pytest.param(20, marks=pytest.mark.slow)])
def test_a_stopped_run_resumes_as_if_it_had_not_been(tmp_path: pathlib.Path, stop: int, whole: Any) -> None:
    settings, expected, log = whole
    _, before = _run(settings, tmp_path, stop)
    trainer, after = _run(settings, tmp_path)
    assert trainer.step == 24
    for got, wanted in zip(_leaves(trainer), _leaves(expected), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert trainer.evaluations == expected.evaluations
    again = min(after.points)
    assert again == stop // 3 * 3 + 1 if stop % 8 else again <= stop + 1
    assert {**before.points, **after.points} == log.points
    assert sorted(log.points) == list(range(1, 25))


@pytest.mark.parametrize(
    ("stop", "first"), [pytest.param(10, 0, marks=pytest.mark.slow), (13, 2)]
)  # after the first and the second calibration
def test_each_calibration_sees_other_images(tmp_path: pathlib.Path, stop: int, first: int) -> None:
    trainer, _ = _run(_settings(CycleAware(), cycles=0.2), tmp_path, stop)
    arrays, _ = trainer.snapshot()
    seen = arrays["activations/conv1_1"]
    np.testing.assert_array_equal(seen != 0, SPLITS.train.images[first : first + 2] != 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Trainer, Log]:
    settings = _settings(CycleAware(), cycles=0.2)
    return settings, *_run(settings, tmp_path_factory.mktemp("whole"))


def test_a_learning_run_meets_its_target_and_reports_what_it_does(whole: tuple[Settings, Trainer, Log]) -> None:
    settings, trainer, log = whole
    assert [log.points[step]["phase"] for step in (8, 9, 16, 17)] == ["dense", "sparse", "sparse", "tune"]
    learned = log.points[9]
    assert learned["expected_cycles"] == pytest.approx(learned["target_cycles"], rel=1e-5)
    assert abs(learned["proxy_error"]) < 0.2
    assert log.points[11]["calibration_age"] == 2
    assert log.points[12]["calibration_age"] == 0
    layers = trainer.model.trace(SPLITS.train.images[:8]).layers
    assert "exact_cycles" in log.points[21]  # the first step of the tune phase's last epoch
    evaluation = evaluate(trainer.model, SPLITS.test, ARCH, 8)
    assert evaluation.layers[0].activations.shape[0] == len(evaluation.cycle_shares) == 8
    assert evaluation.accuracy == evaluation.correct.mean()
    assert trainer.evaluations["tune"]["density"] == pytest.approx(
        sum(layer.weights.sum() for layer in layers) / sum(layer.weights.size for layer in layers)
    )
    assert settings.cycles is not None
    assert evaluation.summary()["cycle_share"] == pytest.approx(settings.cycles, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stale", "no_mesh", "mac_penalty", "no_activations"])
def test_ablations_meet_the_target_and_resume_as_if_they_had_not_been_stopped(
    tmp_path: pathlib.Path, name: str
) -> None:
    settings = _settings(LEARNERS[name](), cycles=0.3)
    expected, log = _run(settings, tmp_path / "whole")
    _, before = _run(settings, tmp_path / "stopped", stop=14)
    trainer, after = _run(settings, tmp_path / "stopped")
    for got, wanted in zip(_leaves(trainer), _leaves(expected), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert {**before.points, **after.points} == log.points
    ages = [log.points[step]["calibration_age"] for step in range(9, 17)]
    assert ages == (list(range(8)) if name == "stale" else [0, 1, 2, 0, 1, 2, 0, 1])
    assert [step for step, point in log.points.items() if "proxy_error" in point] == [9, 12, 15]
    last = [point["exact_cycles"] for point in log.points.values() if "exact_cycles" in point][-1]
    assert last == pytest.approx(0.3, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "cycles"), [(None, None), (CycleAware(), 0.2)])
def test_activations_become_sparse_and_a_stopped_run_resumes_as_if_it_had_not_been(
    tmp_path: pathlib.Path, method: Method | None, cycles: float | None
) -> None:
    settings = _settings(method, cycles=cycles, activation_penalty=3.0)
    expected, log = _run(settings, tmp_path / "whole")
    assert ["activity" in log.points[step] for step in range(1, 25)] == [False] * 8 + [True] * 16
    _, before = _run(settings, tmp_path / "stopped", stop=14)
    trainer, after = _run(settings, tmp_path / "stopped")
    for got, wanted in zip(_leaves(trainer), _leaves(expected), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert {**before.points, **after.points} == log.points
    if method is None:
        assert all(np.asarray(mask.get_value()).all() for mask in trainer.model.masks.values())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (GlobalMagnitude(), {"density": 0.5}),
        pytest.param(MacAwareMagnitude(), {"cycles": 0.3}, marks=pytest.mark.slow),
        pytest.param(NM(1, 4), {}, marks=pytest.mark.slow),
        (None, {}),
    ],
)
def test_other_methods_reach_their_targets(tmp_path: pathlib.Path, method: Any, options: dict[str, float]) -> None:
    trainer, log = _run(_settings(method, **options), tmp_path)
    masks = {name: np.asarray(mask.get_value()) for name, mask in trainer.model.masks.items()}
    if method is None:
        assert sorted(log.points) == list(range(1, 9))
        assert all(mask.all() for mask in masks.values())
    elif "density" in options:
        kept = sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values())
        assert kept == pytest.approx(0.5, abs=0.01)
        densities = [log.points[step]["density"] for step in range(9, 25)]
        assert densities == sorted(densities, reverse=True)
    elif "cycles" in options:
        last = [point["exact_cycles"] for point in log.points.values() if "exact_cycles" in point][-1]
        assert last == pytest.approx(0.3, rel=0.03)
    else:
        np.testing.assert_array_equal(masks["conv2_1"].sum(2), 1)
        assert trainer.model.straight_through


def test_a_loss_that_is_not_finite_ends_the_run_with_checkpoints_as_they_were(tmp_path: pathlib.Path) -> None:
    broken = _trainer(_settings(None, dense=Phase(4, 1e-2)))
    checkpoints = Checkpoints(tmp_path, {})

    def report(figures: Mapping[str, Any], step: int) -> None:
        if step == 7:  # the next weights are not numbers
            arrays, about = broken.snapshot()
            broken.restore(
                {name: array * np.nan if "params" in name else array for name, array in arrays.items()}, about
            )

    with pytest.raises(ValueError, match=r"the loss is nan at step 8; a lower learning rate of the dense phase"):
        broken.run(report, lambda model: {}, checkpoints, save_every=3)
    found = checkpoints.restore(print)
    checkpoints.close()
    assert found is not None
    assert found[1]["step"] == 6
    assert all(np.isfinite(array).all() for array in found[0].values())


def test_a_target_out_of_reach_is_refused_before_weights_are_chosen(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"cycles must be above 0\.\d+, the share.*got 0.0001"):
        _run(_settings(GlobalMagnitude(), cycles=1e-4), tmp_path)


def test_checkpoints_that_are_damaged_are_skipped_and_others_refused(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path, {"seed": 0, "model": {"stages": [1, 2]}})
    for step in (3, 6):
        checkpoints.save(step, {"a": np.arange(step), "b/c": np.array(True)}, {"step": step})
    for killed in ("9.partial", "9.partial.orbax-checkpoint-tmp"):  # while it wrote
        (tmp_path / killed).mkdir()
    for path in (tmp_path / "6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:5])
    notes: list[str] = []
    found = Checkpoints(tmp_path, {"seed": 0, "model": {"stages": [1, 2]}}).restore(notes.append)
    assert found is not None
    assert found[1] == {"step": 3}
    assert list(found[0]) == ["a", "b/c"]
    np.testing.assert_array_equal(found[0]["a"], np.arange(3))
    assert len(notes) == 1
    assert "checkpoint 6" in notes[0]
    assert {path.name for path in tmp_path.iterdir()} == {"3", "damaged-6"}
    with pytest.raises(ValueError, match=r"another configuration: model.stages was \[1, 2\], now \[1\]; new was None"):
        Checkpoints(tmp_path, {"seed": 0, "model": {"stages": [1]}, "new": 1}).restore(print)
    assert Checkpoints(tmp_path / "none", {}).restore(print) is None


def test_a_single_flipped_bit_in_any_file_of_a_checkpoint_is_found(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    for step in (3, 6):
        checkpoints.save(step, {"a": np.random.default_rng(step).random((20, 30))}, {"step": step})
    files = [path for path in (tmp_path / "6").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        whole = path.read_bytes()
        for offset, bit in ((0, 5), (len(whole) // 3, 0), (len(whole) // 2, 6), (len(whole) - 1, 2)):
            flipped = bytearray(whole)
            flipped[offset] ^= 1 << bit
            path.write_bytes(flipped)
            notes: list[str] = []
            found = checkpoints.restore(notes.append)
            assert found is not None
            assert found[1] == {"step": 3}
            (note,) = notes
            start = f"checkpoint 6 is damaged, so it is skipped and kept as {tmp_path / 'damaged-6'}: "
            assert note.startswith(start)
            assert (
                path.name == "checksums.json"
                or note == f"{start}{path.relative_to(tmp_path / '6')} does not match its checksum"
            )
            (tmp_path / "damaged-6").rename(tmp_path / "6")
        path.write_bytes(whole)
    found = checkpoints.restore(print)
    assert found is not None
    np.testing.assert_array_equal(found[0]["a"], np.random.default_rng(6).random((20, 30)))
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_that_lacks_a_file_is_skipped_and_the_newest_two_are_kept(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    for step in (3, 6, 9):
        checkpoints.save(step, {"a": np.arange(step)}, {"step": step})
    assert {path.name for path in tmp_path.iterdir()} == {"6", "9"}
    (tmp_path / "9/record/metadata").unlink()
    notes: list[str] = []
    found = checkpoints.restore(notes.append)
    assert found is not None
    assert found[1] == {"step": 6}
    assert notes[0].endswith("damaged-9: record/metadata is missing")


def test_checkpoints_of_another_version_are_refused(tmp_path: pathlib.Path) -> None:
    manager = ocp.CheckpointManager(tmp_path / "earlier")
    state = ocp.args.StandardSave({"leaves": [np.arange(3)]})  # pyright: ignore[reportCallIssue]
    record = ocp.args.JsonSave({"identity": {}, "about": {"step": 1}})  # pyright: ignore[reportCallIssue]
    manager.save(1, args=ocp.args.Composite(state=state, record=record))
    manager.close()
    with pytest.raises(ValueError, match=r"checkpoints of an earlier version, but .* reads version 1\. Set another"):
        Checkpoints(tmp_path / "earlier", {}).restore(print)
    assert (tmp_path / "earlier/1").is_dir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("phantom_jax.training.checkpoints._VERSION", "version 2")
        Checkpoints(tmp_path / "later", {}).save(1, {"a": np.arange(3)}, {})
    with pytest.raises(ValueError, match=r"checkpoints of version 2, but this phantom_jax reads version 1\."):
        Checkpoints(tmp_path / "later", {}).restore(print)


def test_arrays_of_another_network_are_refused() -> None:
    trainer = _trainer(_settings(None))
    arrays, about = trainer.snapshot()
    name = "state/params/network/conv1_1/kernel/value"
    for wrong, shape in (
        ({name: np.ones((3, 3, 1, 5))}, r"\(3, 3, 1, 5\)"),
        ({"state/params/z": np.ones(2)}, r"\(2,\)"),
    ):
        with pytest.raises(ValueError, match=rf"arrays must be those of this network.*got {shape}; 1 of"):
            trainer.restore({**arrays, **wrong}, about)


GOOD: dict[str, Any] = {**PHASES, "method": GlobalMagnitude(), "density": 0.5}


def test_a_full_disk_is_reported_and_leaves_checkpoints_as_they_were(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(1, {"a": np.arange(3)}, {"step": 1})

    def is_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", is_full)
    with pytest.raises(OSError, match=r"after step 2 cannot be saved in .* bytes are free: .*No space left.*resume="):
        checkpoints.save(2, {"a": np.arange(3)}, {"step": 2})
    found = Checkpoints(tmp_path, {}).restore(print)
    assert found is not None
    assert found[1] == {"step": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dense": Phase(-1, 1.0)}, "dense.epochs must be a non-negative integer, got -1"),
        ({"tune": Phase(1, 0.0)}, "tune.learning_rate must be a positive number, got 0.0"),
        (
            {"tune": Phase(0, 1.0)},
            "tune.epochs must be positive where weights or activations are made sparse, got 2",
        ),
        ({"activation_penalty": -1}, "activation_penalty must be a number of 0 or more, got -1"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"optimizer": "lamb"}, "optimizer must be one of adamw, sgd, got 'lamb'"),
        ({"weight_decay": -1}, "weight_decay must be a number of 0 or more, got -1"),
        ({"cycles": 0.5}, "cycles or density must be set"),
        ({"density": None}, "cycles or density must be set"),
        ({"density": 0.0}, "density must be a number above 0 and at most 1, or null, got 0.0"),
        ({"method": None}, "must be null for a method without a target"),
        ({"method": CycleAware()}, "cycles must be set for a method that learns"),
        ({"ramp": 2}, "ramp must be a number from 0 to 1, got 2"),
        ({"penalty": 0}, "penalty must be a positive number, got 0"),
    ],
)
def test_bad_settings_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold brackets
        Settings(**{**GOOD, **options})
    assert message in str(error.value)


def test_more_images_in_a_batch_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at most the 64 training images, got 65"):
        _trainer(dataclasses.replace(_settings(None), batch_size=65))
