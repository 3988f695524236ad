"""Training in phases: dense, sparse, tuned; stoppable and resumable at every step."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import enable_cache
from phantom_jax.layer import Layer
from phantom_jax.proxy import Calibration, calibrate, expected_cycles_from
from phantom_jax.sparsity import (
    CycleAware,
    Masked,
    Method,
    activation_prices,
    dense_cycles,
    exact_cycles,
    keep_best,
    keep_cycles,
    keep_density,
)
from phantom_jax.training.checkpoints import Checkpoints
from phantom_jax.training.data import Splits, batch_indices
from phantom_jax.training.settings import PHASES, Settings
from phantom_jax.training.steps import build_step, merge, split

_ADJUSTED = 0.9  # of the tune phase, until when masks are adjusted
_DRAWN = 4  # masks whose exact cycles check the proxy

Tell = Callable[[Mapping[str, Any], int], None]
Evaluate = Callable[[Masked], dict[str, Any]]


class Trainer:
    """A training run.

    Its state is the network, the optimizers, the scores of weights once they are learned, the calibration's
    activations and age, the prices of activations, and the step. Random numbers and the order of images follow from the
    seed and the step.
    """

    def __init__(
        self,
        settings: Settings,
        network: Callable[[nnx.Rngs], nnx.Module],
        splits: Splits,
        arch: Phantom2D,
    ) -> None:
        """Makes a run that has not begun.

        Args:
            settings: Of the run.
            network: Makes the network.
            splits: The images.
            arch: The accelerator.

        Raises:
            ValueError: There are fewer images than one batch, or the network's layers cannot be masked.
        """
        enable_cache()  # before the network's own programs are compiled
        images = splits.train.images
        self.settings, self.splits, self.arch = settings, splits, arch
        settings.check_images(len(images))
        per_epoch = len(images) // settings.batch_size
        ends = np.cumsum([settings.steps(phase, per_epoch) for phase in PHASES])
        self.ends: dict[str, int] = dict(zip(PHASES, map(int, ends), strict=True))
        self.steps = int(ends[-1])
        self.per_epoch = per_epoch
        self.step = 0
        self.phase = PHASES[0]
        self._model = Masked(network(nnx.Rngs(settings.seed)), images[:2])
        self._model.train()
        self._key = jax.random.key(settings.seed)
        self._scores: dict[str, np.ndarray] = {}
        self._activations: list[np.ndarray] = []
        self._calibration: Calibration | None = None
        self._priced_by: dict[str, Any] = {}  # of the calibration's activations, see `CycleAware.priced_by`
        self._calibrated = 0  # at which step
        self._prices: dict[str, np.ndarray] = {}  # of activations, as shares of the cycles expected then
        self._first_share = math.nan  # of the dense cycles, before weights are chosen
        self._share = math.nan  # last exact cycles of the masks, on the images that they are adjusted on
        self.evaluations: dict[str, dict[str, Any]] = {}  # by phase that is done
        self._dense_cycles = dense_cycles(self._model.trace(images[:1]), arch)
        self._enter_structure()

    @property
    def model(self) -> Masked:
        """The network as it is."""
        return merge(self._graph, *self._state[:3])

    def run(self, tell: Tell, evaluate: Evaluate, checkpoints: Checkpoints | None, save_every: int = 1) -> None:
        """Trains to the end.

        Args:
            tell: Told the figures of each step, and the step, counted from 1, before it is saved.
            evaluate: Returns plain figures of the network; called at the end of each phase.
            checkpoints: Where the state is saved; nowhere if None.
            save_every: Steps between checkpoints.

        Raises:
            ValueError: The loss is not finite, or the target is out of reach.
        """
        images, labels = self.splits.train.images, self.splits.train.labels
        while self.step < self.steps:
            figures = self._prepare()
            indices = batch_indices(self.step, len(images), self.settings.batch_size, self.settings.seed)
            key = jax.random.fold_in(self._key, self.step)
            learned_from = self._calibration, self._target(), self._priced_by, self._prices
            state, of_step = self._step(self._state, images[indices], labels[indices], key, *learned_from)
            values = {name: float(value) for name, value in of_step.items()}
            if not math.isfinite(values["loss"]):
                raise ValueError(
                    f"the loss is {values['loss']} at step {self.step + 1}; a lower learning rate of the {self.phase} "
                    "phase may help. Checkpoints are as they were."
                )
            self._state = state
            self.step += 1
            tell({"phase": self.phase, **values, **figures, **self._penalty_figures()}, self.step)
            is_done = self.step == self.ends[self.phase]
            if is_done:
                self.evaluations[self.phase] = evaluate(self.model)
            if checkpoints is not None and (self.step % save_every == 0 or is_done):
                checkpoints.save(self.step, *self.snapshot())

    def snapshot(self) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Returns the state as arrays, and plain values about it.

        Raises:
            ValueError: Weights are not finite.
        """
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self._saved())]
        if not all(np.isfinite(leaf).all() for leaf in leaves if leaf.dtype.kind == "f"):
            raise ValueError(f"weights are not finite after step {self.step}. Checkpoints are as they were.")
        return leaves, {
            "phase": self.phase,
            "step": self.step,
            "scored": bool(self._scores),
            "activations": len(self._activations),
            "priced": bool(self._prices),
            "calibrated": self._calibrated,
            "first_share": self._first_share,
            "share": self._share,
            "evaluations": self.evaluations,
        }

    def restore(self, leaves: Sequence[np.ndarray], about: Mapping[str, Any]) -> None:
        """Takes over a snapshot of a run of the same settings; in the dense phase, those of sparsity may differ."""
        self.phase, self.step = about["phase"], about["step"]
        self._calibrated, self._first_share, self._share = about["calibrated"], about["first_share"], about["share"]
        self.evaluations = dict(about["evaluations"])
        self._model.straight_through = self._is_straight_through
        if self._learns and self.phase == "sparse":
            self._model.learn(self._model.weights())
        if about["scored"]:
            self._scores = {name: np.asarray(values) for name, values in self._model.weights().items()}
        self._enter_structure()
        self._activations = [np.zeros(0)] * about["activations"]
        self._prices = {name: np.zeros(0) for name in self._model.names} if about["priced"] else {}
        structure = jax.tree.structure(self._saved())
        self._state, self._scores, self._activations, self._prices = jax.tree.unflatten(structure, leaves)
        self._state = jax.tree.map(jax.numpy.asarray, self._state)
        if self._activations:
            layers = self.model.trace(self._images(self.settings.calibration_images))
            self._calibrate_on(
                [
                    dataclasses.replace(layer, activations=seen)
                    for layer, seen in zip(layers, self._activations, strict=True)
                ]
            )

    @property
    def _learns(self) -> bool:
        return self._method is not None and self._method.learns

    @property
    def _method(self) -> Method | None:
        return self.settings.method

    @property
    def _is_straight_through(self) -> bool:
        return self.phase != "dense" and self._method is not None and self._method.straight_through

    def _saved(self) -> tuple[Any, ...]:
        return self._state, self._scores, self._activations, self._prices

    def _enter_structure(self) -> None:
        """Prepares optimizers and the compiled step for the phase, from the network."""
        self._graph, params, keep, rest = split(self._model)
        optimizer, keep_optimizer, self._step = build_step(
            self._graph,
            self.settings.shared(),
            self.phase,
            self.ends[self.phase] - self._begin(),
            self._dense_cycles if self._model.keep else None,
        )
        keep_state = None if keep_optimizer is None else keep_optimizer.init(keep)
        self._state: tuple[Any, ...] = (params, keep, rest, optimizer.init(params), keep_state)

    def _target(self) -> np.float32 | None:
        """Returns the share of the dense cycles that is wanted at the step where they are learned from."""
        if not (self._learns and self.phase == "sparse"):
            return None
        steps, target = self.ends["sparse"] - self._begin(), float(self.settings.cycles or math.nan)
        left = max(1 - (self.step - self._begin()) / max(self.settings.ramp * steps, 1), 0)
        return np.float32(target + (self._first_share - target) * left)

    def _begin(self) -> int:
        """Returns the first step of the phase."""
        index = PHASES.index(self.phase)
        return self.ends[PHASES[index - 1]] if index else 0

    def _images(self, count: int) -> np.ndarray:
        return self.splits.train.images[:count]

    def _next_images(self) -> np.ndarray:
        """Returns images to calibrate on: others at each step, since a few alone would say little of all."""
        images = self.splits.train.images
        first = (self.step - self._begin()) // self.settings.calibrate_every * self.settings.calibration_images
        return images.take(range(first, first + self.settings.calibration_images), axis=0, mode="wrap")

    def _prepare(self) -> dict[str, Any]:
        """Does what is due before a step; returns figures of it."""
        while self.step >= self.ends[self.phase]:
            self._enter(PHASES[PHASES.index(self.phase) + 1])
        since = self.step - self._begin()
        figures = {} if self._method is None else self._adjust(since)
        if self.settings.activation_penalty and self.phase != "dense" and since % self.settings.calibrate_every == 0:
            self._price()
        return figures

    def _adjust(self, since: int) -> dict[str, Any]:
        """Calibrates, or sets masks, where that is due so many steps into the phase; returns figures of it."""
        if self.phase == "sparse" and since % self.settings.calibrate_every == 0:
            return self._calibrate() if self._learns else self._choose(since / (self.ends["sparse"] - self._begin()))
        tuned = since / max(self.ends["tune"] - self.ends["sparse"], 1)
        last = since == math.ceil(_ADJUSTED * (self.ends["tune"] - self.ends["sparse"]))
        if self.phase == "tune" and since and (last or (since % self.per_epoch == 0 and tuned < _ADJUSTED)):
            return self._choose(1.0)
        return {}

    def _enter(self, phase: str) -> None:
        self._model = self.model
        if phase == "sparse":
            self._check_reach(self._model)
            if isinstance(self._method, CycleAware):
                self._model.learn(self._method.logits(self._model))
                calibration = calibrate(self._model.trace(self._images(self.settings.calibration_images)), self.arch)
                expected = expected_cycles_from(calibration, self._model.probabilities())
                self._first_share = float(expected.sum()) / self._dense_cycles
        elif phase == "tune" and self._method is not None:
            layers = self._model.trace(self._images(self.settings.exact_images))
            if self._learns:
                self._scores = self._method.scores(self._model, layers)
            scores = self._scores or self._method.scores(self._model, layers)
            self._model.set_masks(self._masks(self._model, scores, layers, 1.0))
            self._calibration, self._priced_by, self._activations = None, {}, []
        self.phase = phase
        self._model.straight_through = self._is_straight_through
        self._enter_structure()

    def _check_reach(self, model: Masked) -> None:
        """Refuses a target of fewer cycles than a weight in each layer takes; notes the cycles of all weights."""
        layers = model.trace(self._images(self.settings.exact_images))
        ones = {str(layer.name): np.ones(layer.weights.shape, bool) for layer in layers}
        self._first_share = exact_cycles(layers, ones, self.arch) / self._dense_cycles
        if self.settings.cycles is None:
            return
        single = {name: keep_best({name: np.zeros(mask.shape)}, 1)[name] for name, mask in ones.items()}
        least = exact_cycles(layers, single, self.arch) / self._dense_cycles
        if self.settings.cycles <= least:
            raise ValueError(
                f"cycles must be above {least:.2g}, the share of the dense cycles that one weight in each "
                f"layer takes, got {self.settings.cycles}."
            )

    def _masks(
        self, model: Masked, scores: dict[str, np.ndarray], layers: Any, progress: float
    ) -> dict[str, np.ndarray]:
        """Returns the masks of a schedule that is settled at a progress of 1."""
        settings = self.settings
        if self._method is not None and self._method.is_fixed:
            masks = {name: values > 0 for name, values in scores.items()}
        elif settings.density is not None:
            masks = keep_density(scores, _gradual(1.0, settings.density, progress))
        else:
            share = _gradual(self._first_share, float(settings.cycles or math.nan), progress)
            before = sum(int(mask.get_value().sum()) for mask in model.masks.values())
            masks = keep_cycles(scores, layers, self.arch, share * self._dense_cycles, max(before, 1))
        self._share = exact_cycles(layers, masks, self.arch) / self._dense_cycles
        return masks

    def _choose(self, progress: float) -> dict[str, Any]:
        """Sets masks anew by score."""
        assert self._method is not None
        model = self.model
        learned = bool(self._scores)
        layers = model.trace(self._images(self.settings.exact_images) if self.phase == "tune" else self._next_images())
        scores = self._scores if learned else self._method.scores(model, layers)
        settled = 1.0 if self.phase == "tune" else min(progress / max(self.settings.ramp, 1e-9), 0.999)
        model.set_masks(self._masks(model, scores, layers, settled))
        rest = split(model)[3]
        self._state = (*self._state[:2], rest, *self._state[3:])
        return {"exact_cycles": self._share}

    def _calibrate(self) -> dict[str, Any]:
        """Calibrates the proxy on the network as it is, unless it is to be stale, and checks it on drawn masks."""
        model = self.model
        layers = model.trace(self._next_images())
        assert isinstance(self._method, CycleAware)
        if self._calibration is None or not self._method.is_stale:
            self._activations = [np.asarray(layer.activations) for layer in layers]
            self._calibrate_on(layers)
            self._calibrated = self.step
        assert self._calibration is not None
        probabilities = [np.asarray(values) for values in model.probabilities()]
        expected = float(expected_cycles_from(self._calibration, probabilities).sum())
        rng = np.random.default_rng((self.settings.seed, self.step))
        drawn = []
        for _ in range(_DRAWN):
            masks = {name: rng.random(p.shape) < p for name, p in zip(model.names, probabilities, strict=True)}
            drawn.append(exact_cycles(layers, masks, self.arch))
        exact = float(np.mean(drawn))
        return {"exact_cycles": exact / self._dense_cycles, "proxy_error": expected / exact - 1}

    def _price(self) -> None:
        """Prices activations for the network as it is."""
        model = self.model
        layers = model.trace(self._next_images())
        probabilities = model.probabilities()
        expected = np.float32(expected_cycles_from(calibrate(layers, self.arch), probabilities).sum())
        prices = activation_prices(layers, dict(zip(model.names, probabilities, strict=True)), self.arch)
        self._prices = {name: values / expected for name, values in prices.items()}

    def _calibrate_on(self, layers: Sequence[Layer]) -> None:
        self._calibration = calibrate(layers, self.arch)
        if isinstance(self._method, CycleAware):
            self._priced_by = self._method.priced_by(layers, self.arch)

    def _penalty_figures(self) -> dict[str, Any]:
        if not self._learns or self.phase != "sparse":
            return {}
        penalty = self._state[4][0]
        return {
            "expected_cycles": float(penalty.cycles),
            "target_cycles": float(penalty.target),
            "penalty_weight": float(penalty.multiplier),
            "calibration_age": self.step - 1 - self._calibrated,
        }


def _gradual(start: float, end: float, progress: float) -> float:
    """Returns the target of a gradual schedule at a progress from 0 to 1 (Zhu and Gupta, arXiv:1710.01878)."""
    return float(np.asarray(optax.polynomial_schedule(start, end, power=3, transition_steps=1)(progress)))
