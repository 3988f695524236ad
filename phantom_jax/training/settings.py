"""What a training run is made of: phases, a method, a target."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import optax

from phantom_jax.checks import integer, number, one_of
from phantom_jax.sparsity import CycleAware, Method

PHASES = ("dense", "sparse", "tune")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of training. The learning rate falls along a cosine, but stays as it is while weights are chosen."""

    epochs: int
    learning_rate: float


@dataclasses.dataclass(frozen=True)
class Settings:
    """A training run; numbers are checked.

    A dense network is trained, then made sparse by a method, then trained further. Masks are adjusted during the first
    90% of that phase: activations change, and with them the cycles of a mask. Without a method there is a dense phase
    alone, unless activations are penalized: then they are made sparse in the other phases. Weights stay as they are.
    """

    dense: Phase
    sparse: Phase
    tune: Phase
    method: Method | None = None
    cycles: float | None = None  # wanted, as a share of the dense cycles
    density: float | None = None  # wanted in place of cycles
    seed: int = 0
    batch_size: int = 64
    optimizer: str = "adamw"  # or sgd, with a momentum of 0.9
    weight_decay: float = 1e-4
    shift: int = 0  # augmentation, see `phantom_jax.training.data.augment`
    flip: bool | None = False
    ramp: float = 0.6  # of the sparse phase, when the schedule has reached the target
    calibrate_every: int = 50  # steps between calibrations, and between masks of the schedule
    calibration_images: int = 2  # that the proxy counts cycles on, others at each calibration
    exact_images: int = 32  # that masks are adjusted on
    logit_rate: float = 0.03  # learning rate of keep probabilities
    penalty: float = 1.0  # first weight, see `phantom_jax.sparsity.cycle_penalty`
    gain: float = 0.02
    damping: float = 4.0
    activation_penalty: float = 0.0  # weight of what activations cost, as a share of the cycles, after the dense phase

    def __post_init__(self) -> None:
        """Checks all settings.

        Raises:
            ValueError: One is not valid.
        """
        for name in PHASES:
            phase = getattr(self, name)
            if not isinstance(phase, Phase):
                raise ValueError(f"{name} must be a Phase, got {phase!r}.")
            integer(f"{name}.epochs", phase.epochs, minimum=0)
            number(f"{name}.learning_rate", phase.learning_rate, "a positive number", _is_positive)
        for name in ("batch_size", "calibrate_every", "calibration_images", "exact_images"):
            integer(name, getattr(self, name), minimum=1)
        integer("seed", self.seed, minimum=0)
        one_of("optimizer", self.optimizer, tuple(_OPTIMIZERS))
        number("weight_decay", self.weight_decay, "a number of 0 or more", lambda value: 0 <= value < math.inf)
        number("ramp", self.ramp, "a number from 0 to 1", lambda value: 0 <= value <= 1)
        for name in ("logit_rate", "penalty"):
            number(name, getattr(self, name), "a positive number", _is_positive)
        for name in ("gain", "damping", "activation_penalty"):
            number(name, getattr(self, name), "a number of 0 or more", lambda value: 0 <= value < math.inf)
        for name in ("cycles", "density"):
            if getattr(self, name) is not None:
                share = "a number above 0 and at most 1, or null"
                number(name, getattr(self, name), share, lambda value: 0 < value <= 1)
        targets = (self.cycles is not None) + (self.density is not None)
        if self.method is None or self.method.is_fixed:
            if targets:
                raise ValueError(
                    f"{'density' if self.cycles is None else 'cycles'} must be null for a method without a target."
                )
        elif targets != 1:
            raise ValueError(
                f"cycles or density must be set, and the other must be null, got {self.cycles!r} and {self.density!r}."
            )
        if isinstance(self.method, CycleAware) and self.cycles is None:
            raise ValueError("cycles must be set for a method that learns from cycles, got null.")
        if self.sparsifies and not (self.sparse.epochs and self.tune.epochs):
            raise ValueError(
                "sparse.epochs and tune.epochs must be positive where weights or activations are made "
                f"sparse, got {self.sparse.epochs} and {self.tune.epochs}."
            )

    @property
    def sparsifies(self) -> bool:
        """Whether there are phases after the dense one."""
        return self.method is not None or self.activation_penalty > 0

    def steps(self, phase: str, per_epoch: int) -> int:
        """Returns the steps of a phase, given those of an epoch."""
        if phase != "dense" and not self.sparsifies:
            return 0
        return getattr(self, phase).epochs * per_epoch

    def check_images(self, count: int) -> None:
        """Checks the settings for a number of training images.

        Raises:
            ValueError: There are fewer than one batch.
        """
        if count < self.batch_size:
            raise ValueError(f"batch_size must be at most the {count} training images, got {self.batch_size}.")

    def shared(self, learns: bool) -> "Settings":
        """Returns settings that differ from others only in what a compiled step depends on.

        Args:
            learns: Whether keep probabilities are learned in the step; else it does not depend on the method.
        """
        method, cycles = None, None
        if learns and isinstance(self.method, CycleAware):
            method, cycles = dataclasses.replace(self.method, recalibrates=True), 1.0
        counts = {"calibrate_every": 1, "calibration_images": 1, "exact_images": 1}
        return dataclasses.replace(self, method=method, cycles=cycles, density=None, seed=0, ramp=0.0, **counts)

    def weights_optimizer(self, phase: str, steps: int) -> optax.GradientTransformation:
        """Returns the optimizer of weights for a phase of that many steps."""
        rate = getattr(self, phase).learning_rate
        schedule = rate if phase == "sparse" else optax.cosine_decay_schedule(rate, max(steps, 1))
        return _OPTIMIZERS[self.optimizer](schedule, self.weight_decay)


def _sgd(rate: Any, weight_decay: float) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum=0.9, nesterov=True))


_OPTIMIZERS: dict[str, Callable[[Any, float], optax.GradientTransformation]] = {
    "adamw": lambda rate, weight_decay: optax.adamw(rate, weight_decay=weight_decay),
    "sgd": _sgd,
}


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf
