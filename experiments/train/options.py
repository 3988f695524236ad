"""The training job: its configuration as data, network and settings of the library."""

import dataclasses
import hashlib
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from experiments.harness import command, schema
from phantom_jax.checks import integer, one_of
from phantom_jax.sparsity import METHODS, NM, CycleAware, Method
from phantom_jax.training import PHASES, Evaluation, Phase, Settings
from phantom_jax.training.data import Dataset, Splits, Subset, load, split
from phantom_jax.training.networks import MODELS

GROUPS = ("arch", "data", "model", "sparsity", "optimizer", "tracking", "phases")
_OPTIONS = (
    *(
        "seed",
        "batch_size",
        "calibrate_every",
        "calibration_images",
        "exact_images",
        "evaluated_images",
        "saved_images",
    ),
    *("checkpoint_every", "resume", "fast"),
)
_FREE = ("tracking", "evaluated_images", "saved_images", "checkpoint_every", "resume")  # may differ when a run goes on
CLOSE = 0.03  # to the target of cycles, or it is told
_FAST_IMAGES, _FAST_BATCH, _FAST_COUNTED = 320, 32, 8
OF_LEARNERS = ("logit_rate", "penalty", "gain", "damping")
_LEARNERS = tuple(name for name, method in METHODS.items() if issubclass(method, CycleAware))
_OF_METHODS = {"n_m": ("n", "m"), **dict.fromkeys(_LEARNERS, OF_LEARNERS)}
_FAST_MODELS: dict[str, dict[str, Any]] = {
    "vgg_small": {"stages": [[8], [16]]},
    "mobilenet_small": {"stem": 8, "pairs": [[16, 1]]},
}


@dataclasses.dataclass(frozen=True)
class Job:
    """What the training job works on."""

    settings: Settings
    dataset: Dataset
    splits: Splits
    network: Callable[[nnx.Rngs], nnx.Module]
    identity: dict[str, Any]  # what a checkpoint must agree with
    evaluated_images: int
    saved_images: int
    checkpoint_every: int
    resume: bool | pathlib.Path


def read(options: Mapping[str, Any], loaded: tuple[Dataset, str] | None = None) -> Job:
    """Returns the job of a configuration.

    Args:
        options: The configuration as plain values.
        loaded: What `load_data` returned, if it has been called before.

    Raises:
        ValueError: An option is unknown or not valid, or the data set cannot be read.
    """
    command.check_names(options, _OPTIONS, GROUPS)
    for name in ("evaluated_images", "saved_images", "checkpoint_every"):
        integer(name, options[name], minimum=1)
    resume = options["resume"]
    if not isinstance(resume, bool) and not (isinstance(resume, str) and resume):
        raise ValueError(f"resume must be true, false or the directory of a run, got {resume!r}.")
    _check_groups(options)
    settings = _settings(options)
    data = dict(options["data"])
    dataset, digest = loaded or load_data(data)
    splits = split(dataset, settings.seed, data["fold"], data["folds"], data["validation"])
    model = dict(options["model"])
    make = MODELS[model.pop("name")]
    shape, classes = dataset.images.shape[1:], len(dataset.classes)
    nnx.eval_shape(lambda: make(shape, classes, nnx.Rngs(0), **model))  # refuses options that are not valid
    if options["fast"]:
        settings = _fast(settings)
        splits = Splits(*(Subset(part.images[:_FAST_IMAGES], part.labels[:_FAST_IMAGES]) for part in _parts(splits)))
        model |= _FAST_MODELS.get(options["model"]["name"], {})
    return Job(
        settings,
        dataset,
        splits,
        lambda rngs: make(shape, classes, rngs, **model),
        {**{name: value for name, value in options.items() if name not in _FREE}, "data_sha256": digest},
        min(options["evaluated_images"], _FAST_COUNTED) if options["fast"] else options["evaluated_images"],
        options["saved_images"],
        options["checkpoint_every"],
        resume if isinstance(resume, bool) else pathlib.Path(resume),
    )


def load_data(data: Mapping[str, Any]) -> tuple[Dataset, str]:
    """Returns the data set of a group of options, and its digest.

    Raises:
        ValueError: It cannot be read.
    """
    dataset = load(data["name"], data["dir"], data["size"])
    digest = hashlib.sha256()
    for array in (dataset.images, dataset.labels, dataset.test_images, dataset.test_labels):
        digest.update(b"" if array is None else array.tobytes())
    return dataset, digest.hexdigest()


def _check_groups(options: Mapping[str, Any]) -> None:
    """Refuses options of groups that nothing would read, and misses those that something would."""
    model = one_of("model.name", options["model"].get("name"), tuple(MODELS))
    of_model = [name for name, of in inspect.signature(MODELS[model]).parameters.items() if of.default is not of.empty]
    method = one_of("sparsity.name", options["sparsity"].get("name"), ("none", *METHODS))
    known = {
        "data": [field.name for field in dataclasses.fields(schema.DataConfig)],
        "model": ["name", *of_model],
        "sparsity": ["name", "cycles", "density", "ramp", "activation_penalty", *_OF_METHODS.get(method, ())],
        "optimizer": ["name", "weight_decay"],
        "phases": PHASES,
        **{f"phases.{phase}": ["epochs", "learning_rate"] for phase in PHASES if phase in options["phases"]},
    }
    for group, names in known.items():
        given = options["phases"][group.partition(".")[2]] if "." in group else options[group]
        command.check_names({f"{group}.{name}": None for name in given}, [f"{group}.{name}" for name in names])


def _settings(options: Mapping[str, Any]) -> Settings:
    sparsity = dict(options["sparsity"])
    name = sparsity.pop("name")
    method: Method | None = None
    if name == "n_m":
        n, m = sparsity.pop("n"), sparsity.pop("m")
        integer("sparsity.m", m, minimum=1)
        if integer("sparsity.n", n, minimum=1) >= m:
            raise ValueError(f"sparsity.n must be less than sparsity.m ({m}), got {n}.")
        method = NM(n, m)
    elif name != "none":
        method = METHODS[name]()
    phases = {phase: Phase(**options["phases"][phase]) for phase in PHASES}
    return Settings(
        **phases,
        method=method,
        **sparsity,
        seed=options["seed"],
        batch_size=options["batch_size"],
        optimizer=options["optimizer"]["name"],
        weight_decay=options["optimizer"]["weight_decay"],
        shift=options["data"]["shift"],
        flip=options["data"]["flip"],
        **{name: options[name] for name in ("calibrate_every", "calibration_images", "exact_images")},
    )


def _fast(settings: Settings) -> Settings:
    """Returns settings of a trial: an epoch for each phase that there is, small batches, few images to count."""
    phases = {name: dataclasses.replace(getattr(settings, name), epochs=1) for name in PHASES}
    exact_images = min(settings.exact_images, _FAST_COUNTED)
    return dataclasses.replace(settings, **phases, batch_size=_FAST_BATCH, exact_images=exact_images)


def _parts(splits: Splits) -> tuple[Subset, ...]:
    return tuple(getattr(splits, field.name) for field in dataclasses.fields(splits))


def off_target(settings: Settings, evaluation: Evaluation) -> float:
    """Returns by how much of the target exact cycles are off it; 0 without a target, or if all weights take less."""
    if settings.cycles is None:
        return 0.0
    off = float(evaluation.cycle_shares.mean()) / settings.cycles - 1
    is_dense = all(np.asarray(layer.weights).all() for layer in evaluation.layers)
    return 0.0 if is_dense and off < 0 else off
