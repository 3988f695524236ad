"""Cases of the co-optimization: a method at a target in a fold, trained and evaluated."""

import dataclasses
import functools
import hashlib
import math
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.cooptimize.frontier import DENSE, Outcome
from experiments.harness import command
from experiments.harness.cases import Key
from experiments.harness.cases import resume as resume_cases
from experiments.harness.files import write_whole
from experiments.harness.options import check_names, each, group_of, make
from experiments.harness.signals import between_steps
from experiments.train import options as train_settings
from experiments.train.methods import LEARNERS, METHODS
from phantom_jax import Layer, LayerReport, Phantom2D, simulate
from phantom_jax.checks import integer, number, one_of
from phantom_jax.training import Checkpoints, Snapshot, Trainer, channels_of, evaluate, reorder
from phantom_jax.training.data import Dataset
from phantom_jax.workloads import write_npz

GROUPS = ("arch", "data", "model", "optimizer", "tracking", "phases", "learner")
_OPTIONS = (
    *("targets", "with_activations", "activation_penalty", "reorder_swaps", "other_meshes", "folds", "accuracy_drop"),
    *("compared_with", "resamples", "evaluated_images", "fast", *train_settings.OF_TRAINING),
)
_LEARNER = ("ramp", *train_settings.OF_LEARNERS)
# Options that say which cases there are, and what is computed from them.
SELECTIONS = ("targets", "with_activations", "folds", "accuracy_drop", "compared_with", "resamples")
SPARSER = "+activations"  # after the name of a method that makes activations sparser, too
_SAVED_IMAGES, _CHECKPOINT_EVERY = 4, 1_000
_FAST_SWAPS = 3
_OF_TRAINING = {"tracking": {}, "saved_images": _SAVED_IMAGES, "checkpoint_every": _CHECKPOINT_EVERY, "resume": False}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run covers."""

    points: tuple[tuple[str, float | str], ...]  # methods with their targets
    folds: tuple[int, ...]
    reorder_swaps: int  # that order the channels of each network; 0 leaves them as they are
    other_meshes: Mapping[str, Phantom2D]  # meshes that networks are counted on, too, by name
    accuracy_drop: float
    compared_with: str  # the method whose cycles those of the others are divided by
    resamples: int
    options: Mapping[str, Any]  # of training, without a method

    @functools.cached_property
    def loaded(self) -> tuple[Dataset, str]:
        """The data set and its digest."""
        return train_settings.load_data(self.options["data"])


@dataclasses.dataclass(frozen=True)
class Case:
    """A method at a target in a fold."""

    method: str
    target: float | str | None
    fold: int
    accuracy: float
    validation_accuracy: float
    test_set: str  # digest of the test images, in order
    correct: str  # of each test image: 0 or 1
    cycles: list[int]  # of the first test images
    unordered_cycles: list[int]  # likewise, before channels were ordered
    shares_elsewhere: dict[str, list[float]]  # of the first test images' cycles without skipping, on other meshes
    dense_cycles: int
    predicted: float  # mean cycles on as many training images
    proxy_error: float | None  # at the last calibration, against drawn masks
    seconds: float
    layers: list[dict[str, Any]]

    @property
    def outcome(self) -> Outcome:
        """What comparisons need."""
        correct = np.array(list(self.correct)) == "1"
        shares = np.array(self.cycles) / self.dense_cycles
        return Outcome(self.method, self.target, self.fold, correct, shares, self.test_set)


def read_settings(options: Mapping[str, Any]) -> Settings:
    """Returns the settings of a configuration.

    Args:
        options: The configuration as plain values.

    Raises:
        ValueError: An option is unknown or not valid.
    """
    check_names(options, (*GROUPS, *_OPTIONS))
    check_names(options["learner"], _LEARNER, group="learner")
    folds = each(options, "folds", lambda name, value: _fold(name, value, options["data"]))
    sparser = [(method + SPARSER, target) for method, target in _points("with_activations", options)]
    points = [*_points("targets", options), *sparser]
    if not points:
        raise ValueError("targets must hold a target of some method, got none.")
    positive = "a number above 0"
    number("activation_penalty", options["activation_penalty"], positive, lambda weight: 0 < weight < math.inf)
    swaps = integer("reorder_swaps", options["reorder_swaps"], minimum=0)
    if options["fast"]:
        folds, swaps = folds[:1], min(swaps, _FAST_SWAPS)
        points = list({method: (method, target) for method, target in reversed(points)}.values())[::-1]
    integer("evaluated_images", options["evaluated_images"], minimum=1)
    return Settings(
        tuple(points),
        folds,
        swaps,
        _other_meshes(options),
        number("accuracy_drop", options["accuracy_drop"], "a number from 0 to 1", lambda drop: 0 <= drop <= 1),
        one_of("compared_with", options["compared_with"], (*METHODS, *(method + SPARSER for method in METHODS))),
        integer("resamples", options["resamples"], minimum=1),
        {name: value for name, value in options.items() if name not in ("tracking", *SELECTIONS)},
    )


def plan(settings: Settings, arch: Phantom2D, directory: pathlib.Path) -> Iterator[tuple[Key, Callable[[], Case]]]:
    """Yields every case: its key, and what trains and evaluates it.

    Args:
        settings: Of the command.
        arch: The accelerator.
        directory: Where checkpoints of dense networks and masks go.
    """
    for fold in settings.folds:
        dense = _once(functools.partial(_train_dense, settings, arch, fold, directory))
        for method, target in ((DENSE, None), *settings.points):
            yield (
                (fold, method, target),
                lambda method=method, target=target, fold=fold, dense=dense: _case(
                    settings, arch, method, target, fold, dense, directory
                ),
            )


def _once(function: Callable[[], Snapshot]) -> Callable[[], Snapshot]:
    """Caches a function's result or exception."""

    @functools.cache
    def ended() -> Snapshot | Exception:
        try:
            return function()
        except Exception as error:
            return error

    def again() -> Snapshot:
        outcome = ended()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return again


def check(settings: Settings) -> None:
    """Refuses options that only training would notice, before anything is trained.

    Raises:
        ValueError: An option is not valid.
    """
    for method, target in dict(settings.points).items():
        training = _training(settings, settings.folds[0], method, target)
        training.settings.check_images(len(training.splits.train.images))


def resume(path: pathlib.Path, identity: Mapping[str, Any]) -> dict[Key, Case]:
    """Returns the cases that an earlier run left in a file, and leaves the file ready for more.

    Args:
        path: The file.
        identity: What cases depend on.

    Raises:
        ValueError: See `experiments.harness.cases.resume`.
    """
    found = resume_cases(path, identity, lambda record: Case(**record))
    return {(case.fold, case.method, case.target): case for case in found}


def mask_path(directory: pathlib.Path, fold: int, method: str, target: float | str | None) -> pathlib.Path:
    """Returns where a run in a directory saves the masks of a case."""
    name = f"fold{fold}-{method}" + ("" if target is None else f"-{target}".replace(":", "of"))
    return directory / "masks" / f"{name}.npz"


def masks_shown(settings: Settings, fold: int, directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the masks of each method at its last target in a fold, by title."""
    last = dict(settings.points)
    return {f"{method} {target}": mask_path(directory, fold, method, target) for method, target in last.items()}


def _fold(name: str, value: Any, data: Mapping[str, Any]) -> int:
    if data["fold"] != 0:
        raise ValueError(f"data.fold must be left at 0, since folds says which are tested on, got {data['fold']!r}.")
    if integer(name, value, minimum=0) >= integer("data.folds", data["folds"], minimum=1):
        raise ValueError(f"{name} must be below data.folds, {data['folds']}, got {value}.")
    return value


def _other_meshes(options: Mapping[str, Any]) -> dict[str, Phantom2D]:
    """Returns meshes by name, each like that of the command but for some parameters."""
    meshes = group_of(options, "other_meshes")
    for name, changes in meshes.items():
        if not isinstance(changes, dict):
            raise ValueError(f"other_meshes.{name} must be parameters of arch that differ, got {changes!r}.")
    return {
        name: make(Phantom2D, {**options["arch"], **changes}, f"other_meshes.{name}")
        for name, changes in meshes.items()
    }


def _points(option: str, options: Mapping[str, Any]) -> list[tuple[str, float | str]]:
    """Returns methods with their targets."""
    return [
        (method, target)
        for method, targets in group_of(options, option).items()
        for target in each(
            {f"{option}.{method}": targets},
            f"{option}.{one_of(option, method, tuple(METHODS))}",
            _target(method),
            least=0,
        )
    ]


def _target(method: str) -> Callable[[str, Any], Any]:
    """Returns what checks a target of a method: a share of the dense cycles, or a pattern for N:M."""
    if method == "n_m":
        return _pattern
    share = "a number above 0 and at most 1"
    return lambda name, value: number(name, value, share, lambda target: 0 < target <= 1)


def _pattern(name: str, value: Any) -> str:
    kept_of, separator, group = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not (separator and kept_of.isdecimal() and group.isdecimal()):
        raise ValueError(f'{name} must be a pattern such as "2:4", got {value!r}.')
    if not 0 < int(kept_of) < int(group):
        raise ValueError(f'{name} must keep some of a group and not all, as "2:4" does, got {value!r}.')
    return value


def _training(settings: Settings, fold: int, method: str, target: float | str | None) -> train_settings.Training:
    """Returns the training of a case."""
    own = ("learner", "reorder_swaps", "activation_penalty", "other_meshes")
    options = {name: value for name, value in settings.options.items() if name not in own}
    learner, activations = dict(settings.options["learner"]), 0.0
    if method.endswith(SPARSER):
        method, activations = method.removesuffix(SPARSER), settings.options["activation_penalty"]
    ramp = learner.pop("ramp")
    sparsity: dict[str, Any] = {"name": "none" if method == DENSE else method, "activation_penalty": activations}
    if method == "n_m":
        sparsity |= dict(zip("nm", map(int, str(target).split(":")), strict=True))
    elif method != DENSE:
        sparsity |= {"cycles": target, "ramp": ramp, **(learner if method in LEARNERS else {"density": None})}
    options |= {"sparsity": sparsity, "data": options["data"] | {"fold": fold}}
    try:
        return train_settings.read(options | _OF_TRAINING, settings.loaded)
    except ValueError as error:
        raise ValueError(re.sub(rf"\bsparsity\.({'|'.join(_LEARNER)})\b", r"learner.\1", str(error))) from error


def _train_dense(settings: Settings, arch: Phantom2D, fold: int, directory: pathlib.Path) -> Snapshot:
    """Returns the dense network of a fold, trained at most once."""
    training = _training(settings, fold, DENSE, None)
    checkpoints = Checkpoints(directory / "dense" / f"fold{fold}", training.identity)
    try:
        trainer = _trainer(training, arch)
        found = checkpoints.restore(lambda note: command.note([note]))
        if found is not None:
            trainer.restore(*found)
        with between_steps() as is_over:
            trainer.run(_say_nothing, lambda _: {}, checkpoints, training.checkpoint_every, is_over)
    finally:
        checkpoints.close()
    return trainer.snapshot()


def _case(
    settings: Settings,
    arch: Phantom2D,
    method: str,
    target: float | str | None,
    fold: int,
    dense: Callable[[], Snapshot],
    directory: pathlib.Path,
) -> Case:
    begin = time.monotonic()
    training = _training(settings, fold, method, target)
    trainer = _trainer(training, arch)
    trainer.restore(*dense())
    errors: list[float] = []

    def note(figures: Mapping[str, Any], step: int) -> None:
        del step
        if "proxy_error" in figures:
            errors.append(figures["proxy_error"])

    trainer.run(note, lambda _: {}, None)
    model = trainer.model
    test = evaluate(model, training.splits.test, arch, training.evaluated_images)
    unordered = test.report.cycles
    seen = training.splits.train.images
    if settings.reorder_swaps:
        images = seen[: settings.options["calibration_images"]]
        model = reorder(model, channels_of(model.network), images, arch, settings.reorder_swaps).model
        test = evaluate(model, training.splits.test, arch, training.evaluated_images)
    path = mask_path(directory, fold, method, target)
    saved = [dataclasses.replace(layer, activations=layer.activations[:_SAVED_IMAGES]) for layer in test.layers]
    path.parent.mkdir(exist_ok=True)
    write_whole(path, lambda file: write_npz(file, saved))
    trained_on = model.trace(seen[: training.evaluated_images])
    return Case(
        method,
        target,
        fold,
        test.accuracy,
        evaluate(model, training.splits.validation, arch, 1).accuracy,
        hashlib.sha256(training.splits.test.images.tobytes()).hexdigest()[:16],
        "".join(map(str, test.correct.astype(int))),
        test.report.cycles.tolist(),
        unordered.tolist(),
        {name: _shares(test.layers, mesh) for name, mesh in settings.other_meshes.items()},
        test.summary()["dense_cycles"],
        float(simulate(trained_on, arch).cycles.mean()),
        errors[-1] if errors else None,
        time.monotonic() - begin,
        [_layer(layer, report) for layer, report in zip(test.layers, test.report.layers, strict=True)],
    )


def _shares(layers: Sequence[Layer], arch: Phantom2D) -> list[float]:
    """Returns the exact cycles of each image as a share of those without skipping."""
    report = simulate(layers, arch)
    return (report.cycles / sum(layer.dense_cycles for layer in report.layers)).tolist()


def _layer(layer: Layer, report: LayerReport) -> dict[str, Any]:
    """Returns what the masks of a layer look like, and where its cycles go on average."""
    weights = np.asarray(layer.weights) != 0
    per_filter = weights.reshape(-1, weights.shape[-1]).mean(0)
    per_kernel = weights.reshape(-1, *weights.shape[-2:]).mean(0)
    return {
        "name": layer.name,
        "size": weights.size,
        "weights": float(weights.mean()),
        "activations": float((np.asarray(layer.activations) != 0).mean()),
        "empty_filters": float((per_filter == 0).mean()),
        "empty_kernels": float((per_kernel == 0).mean()),
        "spread_of_filters": float(per_filter.std()),
        "cycles": float(report.cycles.mean()),
        "dense_cycles": report.dense_cycles,
        "stack": {name: float(thread_slots.mean()) for name, thread_slots in report.stack.items()},
    }


def _trainer(training: train_settings.Training, arch: Phantom2D) -> Trainer:
    return Trainer(training.settings, training.network, training.splits, arch)


def _say_nothing(figures: Mapping[str, Any], step: int) -> None:
    del figures, step
