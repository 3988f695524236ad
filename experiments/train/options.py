"""The training command: its configuration as data, network and settings of the library."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from experiments.harness.options import check_names, group_of, make, named
from experiments.harness.resume import of_options
from experiments.train.methods import LEARNERS, METHODS
from phantom_jax.checks import boolean, integer, one_of
from phantom_jax.training import PHASES, Evaluation, Phase, Settings
from phantom_jax.training.data import Dataset, Splits, Subset, load, split
from phantom_jax.training.networks import MODELS

GROUPS = ("arch", "data", "model", "sparsity", "optimizer", "tracking", "phases")
OF_LEARNERS = ("logit_rate", "penalty", "gain", "damping")
_OF_METHODS = {"n_m": ("n", "m"), **dict.fromkeys(LEARNERS, OF_LEARNERS)}
# Fields of `Settings` that are options of groups, by their names there; the others are options of the command itself.
IN_GROUPS = {
    **{phase: f"phases.{phase}" for phase in PHASES},
    **{name: f"data.{name}" for name in ("shift", "flip")},
    "optimizer": "optimizer.name",
    "weight_decay": "optimizer.weight_decay",
    "method": "sparsity.name",
    **{name: f"sparsity.{name}" for name in ("cycles", "density", "ramp", "activation_penalty", *OF_LEARNERS)},
}
OF_TRAINING = tuple(field.name for field in dataclasses.fields(Settings) if field.name not in IN_GROUPS)
_OPTIONS = (*OF_TRAINING, "evaluated_images", "saved_images", "checkpoint_every", "resume", "fast")
_MAY_DIFFER = ("evaluated_images", "saved_images", "checkpoint_every")  # when a run resumes
_OF_DATA = ("name", "dir", "size", "fold", "folds", "validation", "shift", "flip")
CLOSE = 0.03  # to the target of cycles, else a note says so
_FAST_IMAGES, _FAST_BATCH, _FAST_COUNTED = 320, 32, 8
_FAST_MODELS: dict[str, dict[str, Any]] = {
    "vgg_small": {"stages": [[8], [16]]},
    "mobilenet_small": {"stem": 8, "pairs": [[16, 1]]},
}


@dataclasses.dataclass(frozen=True)
class Training:
    """What a run trains, and on what."""

    settings: Settings
    dataset: Dataset
    splits: Splits
    network: Callable[[nnx.Rngs], nnx.Module]
    identity: dict[str, Any]  # what a checkpoint must agree with
    evaluated_images: int
    saved_images: int
    checkpoint_every: int
    resume: bool | pathlib.Path


def read(options: Mapping[str, Any], loaded: tuple[Dataset, str] | None = None) -> Training:
    """Returns the training of a configuration.

    Args:
        options: The configuration as plain values.
        loaded: What `load_data` returned, if it has been called before.

    Raises:
        ValueError: An option is unknown or not valid, or the data set cannot be read.
    """
    check_names(options, (*GROUPS, *_OPTIONS))
    for name in ("evaluated_images", "saved_images", "checkpoint_every"):
        integer(name, options[name], minimum=1)
    resume = options["resume"]
    if not isinstance(resume, bool) and not (isinstance(resume, str) and resume):
        raise ValueError(f"resume must be true, false or the directory of a run, got {resume!r}.")
    boolean("fast", options["fast"])
    with named(IN_GROUPS):
        settings = _settings(options)
    data = {name: value for name, value in group_of(options, "data").items() if name not in ("shift", "flip")}
    dataset, digest = loaded or load_data(data)
    in_splits = {name: data[name] for name in ("fold", "folds", "validation")}
    splits = make(split, in_splits, "data", dataset=dataset, seed=settings.seed)
    model = group_of(options, "model")
    network = MODELS[one_of("model.name", model.pop("name", None), tuple(MODELS))]
    shape, classes = dataset.images.shape[1:], len(dataset.classes)
    of_data = {"image_shape": shape, "classes": classes}
    nnx.eval_shape(lambda: make(network, model, "model", **of_data, rngs=nnx.Rngs(0)))  # refuses what is not valid
    if options["fast"]:
        settings = _fast(settings)
        splits = Splits(*(Subset(part.images[:_FAST_IMAGES], part.labels[:_FAST_IMAGES]) for part in _parts(splits)))
        model |= _FAST_MODELS.get(options["model"]["name"], {})
    return Training(
        settings,
        dataset,
        splits,
        lambda rngs: network(**of_data, rngs=rngs, **model),
        {**of_options(options, _MAY_DIFFER), "data_sha256": digest},
        min(options["evaluated_images"], _FAST_COUNTED) if options["fast"] else options["evaluated_images"],
        options["saved_images"],
        options["checkpoint_every"],
        resume if isinstance(resume, bool) else pathlib.Path(resume).expanduser(),
    )


def load_data(data: Mapping[str, Any]) -> tuple[Dataset, str]:
    """Returns the data set of a group of options, and its digest.

    Raises:
        ValueError: It cannot be read.
    """
    dataset = make(load, {name: value for name, value in data.items() if name in ("name", "dir", "size")}, "data")
    digest = hashlib.sha256()
    for array in (dataset.images, dataset.labels, dataset.test_images, dataset.test_labels):
        digest.update(b"" if array is None else array.tobytes())
    return dataset, digest.hexdigest()


def _settings(options: Mapping[str, Any]) -> Settings:
    """Returns the library's settings, made from the command's options."""
    groups = {group: group_of(options, group) for group in ("sparsity", "optimizer", "phases", "data")}
    sparsity, optimizer, phases, data = groups.values()
    name = one_of("sparsity.name", sparsity.pop("name", None), ("none", *METHODS))
    is_fixed = name in ("none", "n_m")
    targets = () if is_fixed else ("cycles", "ramp") if name in LEARNERS else ("cycles", "density", "ramp")
    check_names(sparsity, (*_OF_METHODS.get(name, ()), *targets, "activation_penalty"), group="sparsity")
    check_names(optimizer, ("name", "weight_decay"), group="optimizer")
    check_names(phases, PHASES, group="phases")
    check_names(data, _OF_DATA, group="data")
    pattern = {key: sparsity.pop(key) for key in ("n", "m") if key in sparsity}
    method = None if name == "none" else make(METHODS[name], pattern, "sparsity")
    return Settings(
        **{phase: make(Phase, phases[phase], f"phases.{phase}") for phase in PHASES},
        method=method,
        **sparsity,
        optimizer=optimizer["name"],
        weight_decay=optimizer["weight_decay"],
        shift=data["shift"],
        flip=data["flip"],
        **{name: options[name] for name in OF_TRAINING},
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
