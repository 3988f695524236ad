"""The phases of a training run: what each does when it begins, and before some of its steps."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optax

from phantom_jax.arch import Phantom2D
from phantom_jax.layer import Layer
from phantom_jax.proxy import Calibration, calibrate, expected_cycles_from
from phantom_jax.sparsity import (
    CycleAware,
    CyclePenaltyState,
    Masked,
    Method,
    activation_prices,
    exact_cycles,
    keep_cycles,
    keep_density,
    least_cycles,
)
from phantom_jax.training.settings import PHASES, Settings

_ADJUSTED = 0.9  # of the tune phase, until when masks are adjusted
_DRAWN = 4  # masks whose exact cycles check the proxy
Arrays = dict[str, dict[str, np.ndarray]]  # by kind and layer


@dataclasses.dataclass(frozen=True)
class Context:
    """What all phases of a run know."""

    settings: Settings
    images: np.ndarray  # of training
    arch: Phantom2D
    dense_cycles: int  # of the network, per image
    per_epoch: int  # steps


class DensePhase:
    """All weights are trained; also what phases have in common."""

    name = "dense"

    def __init__(self, context: Context, begin: int, end: int) -> None:
        """Makes a phase that has not begun, of the steps from `begin` to before `end`."""
        self._context, self.begin, self.end = context, begin, end

    @property
    def _settings(self) -> Settings:
        return self._context.settings

    def enter(self, model: Masked) -> None:
        """Changes the network as the phase begins.

        Raises:
            ValueError: The target is out of reach.
        """

    def is_due(self, since: int) -> bool:
        """Returns whether `prepare` is to be called before a step of the phase, given the steps since its begin."""
        return False

    def prepare(self, model: Masked, since: int) -> dict[str, Any]:
        """Sets masks or calibrates; returns figures of it."""
        return {}

    def penalty_inputs(self, since: int) -> dict[str, Any]:
        """Returns what the update of keep logits takes, none where they are not learned."""
        return {}

    def penalty_figures(self, state: CyclePenaltyState, since: int) -> dict[str, Any]:
        """Returns figures of the penalty after a step."""
        return {}

    def saved(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns arrays and plain values that a checkpoint needs, besides the network's."""
        return {}, {}

    def restore(self, model: Masked, arrays: Mapping[str, Mapping[str, np.ndarray]], about: Mapping[str, Any]) -> None:
        """Takes over what a phase saved."""

    def next_images(self, since: int) -> np.ndarray:
        """Returns images to calibrate on: others at each calibration, since a few alone would say little of all."""
        count = self._settings.calibration_images
        first = since // self._settings.calibrate_every * count
        return self._context.images.take(range(first, first + count), axis=0, mode="wrap")

    def _share(self, layers: Sequence[Layer], masks: Mapping[str, np.ndarray]) -> float:
        """Returns exact cycles as a share of the dense ones."""
        return exact_cycles(layers, masks, self._context.arch) / self._context.dense_cycles

    def _trace_exactly(self, model: Masked) -> Sequence[Layer]:
        """Returns the layers on the images that masks are adjusted on."""
        return model.trace(self._context.images[: self._settings.exact_images]).layers

    def _set_masks(self, model: Masked, scores: Mapping[str, np.ndarray], layers: Any, target: float) -> float:
        """Sets masks by score that meet a target of cycles or density, and returns their share of the dense cycles."""
        method = self._settings.method
        if method is not None and method.is_fixed:
            masks = {name: values > 0 for name, values in scores.items()}
        elif self._settings.density is not None:
            masks = keep_density(scores, target)
        else:
            before = sum(int(mask.get_value().sum()) for mask in model.masks.values())
            masks = keep_cycles(scores, layers, self._context.arch, target * self._context.dense_cycles, max(before, 1))
        model.set_masks(masks)
        return self._share(layers, masks)


class SparsePhase(DensePhase):
    """Activations become sparse; weights as well where a subclass chooses them."""

    name = "sparse"
    first_share = math.nan  # of the dense cycles, when the phase begins

    def is_due(self, since: int) -> bool:
        """Returns whether masks are chosen anew, or the proxy is calibrated."""
        return self._settings.method is not None and since % self._settings.calibrate_every == 0

    def enter(self, model: Masked) -> None:
        """Refuses a target of fewer cycles than a weight in each layer takes; notes the cycles of all weights."""
        layers = self._trace_exactly(model)
        ones = {str(layer.name): np.ones(layer.weights.shape, bool) for layer in layers}
        self.first_share = self._share(layers, ones)
        target = self._settings.cycles
        if target is None:
            return
        least = least_cycles(layers, self._context.arch) / self._context.dense_cycles
        if target <= least:
            raise ValueError(
                f"cycles must be above {least:.2g}, the share of the dense cycles that one weight in each "
                f"layer takes, got {target}."
            )

    def saved(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns the share that the phase began with."""
        return {}, {"first_share": self.first_share}

    def restore(self, model: Masked, arrays: Mapping[str, Mapping[str, np.ndarray]], about: Mapping[str, Any]) -> None:
        """Takes over that share."""
        self.first_share = about["first_share"]


class ScoredPhase(SparsePhase):
    """Masks are chosen by a method's scores, fewer weights each time."""

    def __init__(self, context: Context, method: Method, begin: int, end: int) -> None:
        """Makes a phase that has not begun."""
        super().__init__(context, begin, end)
        self._method = method

    def prepare(self, model: Masked, since: int) -> dict[str, Any]:
        """Sets masks by score; the target falls as in Zhu and Gupta, arXiv:1710.01878."""
        settings = self._settings
        layers = model.trace(self.next_images(since))
        progress = min(since / (self.end - self.begin) / max(settings.ramp, 1e-9), 0.999)
        first, last = (
            (1.0, settings.density) if settings.density is not None else (self.first_share, settings.cycles or math.nan)
        )
        target = float(np.asarray(optax.polynomial_schedule(first, last, power=3, transition_steps=1)(progress)))
        scores = self._method.scores(model, layers)
        return {"exact_cycles": self._set_masks(model, scores, layers, target)}


class LearnedPhase(SparsePhase):
    """Keep probabilities are learned, with their expected cycles as a penalty."""

    def __init__(self, context: Context, method: CycleAware, begin: int, end: int) -> None:
        """Makes a phase that has not begun."""
        super().__init__(context, begin, end)
        self._method = method
        self._calibration: Calibration | None = None
        self._cost_data: Any = None
        self._activations: dict[str, np.ndarray] = {}  # of the calibration, by layer
        self._calibrated = 0  # how many steps into the phase

    def enter(self, model: Masked) -> None:
        """Begins with logits by magnitude; notes the cycles that are expected of them."""
        super().enter(model)
        model.learn(self._method.logits(model))
        layers = model.trace(self._context.images[: self._settings.calibration_images])
        expected = expected_cycles_from(calibrate(layers, self._context.arch), model.probabilities())
        self.first_share = float(expected.sum()) / self._context.dense_cycles

    def prepare(self, model: Masked, since: int) -> dict[str, Any]:
        """Calibrates the proxy on the network as it is, and checks it on masks that are drawn."""
        layers = model.trace(self.next_images(since)).layers
        if self._calibration is None or self._method.recalibrates:
            self._calibrate(layers)
            self._calibrated = since
        assert self._calibration is not None
        probabilities = [np.asarray(values) for values in model.probabilities()]
        expected = float(expected_cycles_from(self._calibration, probabilities).sum())
        rng = np.random.default_rng((self._settings.seed, self.begin + since))
        drawn = []
        for _ in range(_DRAWN):
            masks = {name: rng.random(p.shape) < p for name, p in zip(model.names, probabilities, strict=True)}
            drawn.append(exact_cycles(layers, masks, self._context.arch))
        exact = float(np.mean(drawn))
        return {"exact_cycles": exact / self._context.dense_cycles, "proxy_error": expected / exact - 1}

    def penalty_inputs(self, since: int) -> dict[str, Any]:
        """Returns the calibration, the target, which falls from the first share, and what the method's cost needs."""
        target = self._settings.cycles or math.nan
        left = max(1 - since / max(self._settings.ramp * (self.end - self.begin), 1), 0)
        wanted = np.float32(target + (self.first_share - target) * left)
        return {"calibration": self._calibration, "target": wanted, "cost_data": self._cost_data}

    def penalty_figures(self, state: CyclePenaltyState, since: int) -> dict[str, Any]:
        """Returns expected cycles, their target, the penalty's weight and the steps since the last calibration."""
        return {
            "expected_cycles": float(state.cycles),
            "target_cycles": float(state.target),
            "penalty_weight": float(state.multiplier),
            "calibration_age": since - self._calibrated,
        }

    def saved(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns the activations of the calibration, and when it was made."""
        _, about = super().saved()
        return {"activations": self._activations}, {**about, "calibrated": self._calibrated}

    def restore(self, model: Masked, arrays: Mapping[str, Mapping[str, np.ndarray]], about: Mapping[str, Any]) -> None:
        """Calibrates again on the activations that were saved."""
        super().restore(model, arrays, about)
        self._calibrated = about["calibrated"]
        if activations := arrays.get("activations"):
            layers = model.trace(self._context.images[: self._settings.calibration_images])
            self._calibrate([dataclasses.replace(layer, activations=activations[str(layer.name)]) for layer in layers])

    def _calibrate(self, layers: Sequence[Layer]) -> None:
        self._activations = {str(layer.name): np.asarray(layer.activations) for layer in layers}
        self._calibration = calibrate(layers, self._context.arch)
        if self._method.cost is not None:
            self._cost_data = self._method.cost.data(layers, self._context.arch)


class TunedPhase(DensePhase):
    """Weights that stay are trained further; masks are adjusted at first, since activations and their cycles change."""

    name = "tune"

    def __init__(self, context: Context, begin: int, end: int) -> None:
        """Makes a phase that has not begun."""
        super().__init__(context, begin, end)
        self._learned: dict[str, np.ndarray] = {}  # scores

    def enter(self, model: Masked) -> None:
        """Chooses masks; from now on, what was learned are scores."""
        method = self._settings.method
        if method is None:
            return
        layers = self._trace_exactly(model)
        scores = method.scores(model, layers)
        if isinstance(method, CycleAware):
            self._learned = dict(scores)
        self._set_masks(model, scores, layers, self._target)

    def is_due(self, since: int) -> bool:
        """Returns whether masks are adjusted: after each epoch, for the last time at 0.9 of the phase."""
        length = self.end - self.begin
        is_last = since == math.ceil(_ADJUSTED * length)
        is_epoch = since % self._context.per_epoch == 0 and since / max(length, 1) < _ADJUSTED
        return self._settings.method is not None and since > 0 and (is_last or is_epoch)

    def prepare(self, model: Masked, since: int) -> dict[str, Any]:
        """Sets masks anew by score."""
        method = self._settings.method
        assert method is not None
        layers = self._trace_exactly(model)
        scores = self._learned or method.scores(model, layers)
        return {"exact_cycles": self._set_masks(model, scores, layers, self._target)}

    def saved(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns the scores that were learned."""
        return {"scores": self._learned}, {}

    def restore(self, model: Masked, arrays: Mapping[str, Mapping[str, np.ndarray]], about: Mapping[str, Any]) -> None:
        """Takes over the scores that were learned."""
        self._learned = dict(arrays.get("scores", {}))

    @property
    def _target(self) -> float:
        wanted = self._settings.density if self._settings.density is not None else self._settings.cycles
        return math.nan if wanted is None else wanted


def phases_of(context: Context) -> list[DensePhase]:
    """Returns the phases of a run, in order."""
    settings, spans, begin = context.settings, {}, 0
    for name in PHASES:
        spans[name] = begin, begin + settings.steps(name, context.per_epoch)
        begin = spans[name][1]
    method = settings.method
    if method is None:
        sparse: SparsePhase = SparsePhase(context, *spans["sparse"])
    elif isinstance(method, CycleAware):
        sparse = LearnedPhase(context, method, *spans["sparse"])
    else:
        sparse = ScoredPhase(context, method, *spans["sparse"])
    return [DensePhase(context, *spans["dense"]), sparse, TunedPhase(context, *spans["tune"])]


def price_activations(model: Masked, images: np.ndarray, arch: Phantom2D) -> dict[str, np.ndarray]:
    """Returns what activations cost, by layer and channel, as shares of the cycles that are expected of the network."""
    layers, probabilities = model.trace(images), model.probabilities()
    expected = np.float32(expected_cycles_from(calibrate(layers, arch), probabilities).sum())
    prices = activation_prices(layers, dict(zip(model.names, probabilities, strict=True)), arch)
    return {name: values / expected for name, values in prices.items()}
