"""Training in phases: dense, sparse, tuned; stoppable and resumable at every step."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import enable_cache
from phantom_jax.sparsity import Masked, dense_cycles
from phantom_jax.training.checkpoints import Checkpoints
from phantom_jax.training.data import Splits, batch_indices
from phantom_jax.training.phases import Context, DensePhase, phases_of, price_activations
from phantom_jax.training.settings import PHASES, Settings
from phantom_jax.training.state import TrainState, split
from phantom_jax.training.steps import build_step

Report = Callable[[Mapping[str, Any], int], None]
Evaluate = Callable[[Masked], dict[str, Any]]
Snapshot = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays by name, and plain values


class Trainer:
    """A training run.

    What it needs to resume is the state of the network and its optimizers, the prices of activations, what the phase
    remembers, and the step. Random numbers and the order of images follow from the seed and the step.
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
        model = Masked(network(nnx.Rngs(settings.seed)), images[:2])
        model.train()
        dense = dense_cycles(model.trace(images[:1]), arch)
        self._context = Context(settings, images, arch, dense, len(images) // settings.batch_size)
        self._phases = phases_of(self._context)
        self.ends: dict[str, int] = {phase.name: phase.end for phase in self._phases}
        self.steps = self._phases[-1].end
        self.step = 0
        self.evaluations: dict[str, dict[str, Any]] = {}  # by phase that is done
        self._key = jax.random.key(settings.seed)
        self._prices: dict[str, np.ndarray] = {}  # of activations, as shares of the cycles expected then
        self._begin(self._phases[0], model)

    @property
    def model(self) -> Masked:
        """The network as it is, a copy."""
        return self._state.model(self._graph)

    def run(
        self,
        report: Report,
        evaluate: Evaluate,
        checkpoints: Checkpoints | None,
        save_every: int = 1,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Trains to the end.

        Args:
            report: Called with the figures of each step, and the step, counted from 1, before it is saved.
            evaluate: Returns plain figures of the network; called at the end of each phase.
            checkpoints: Where the state is saved; nowhere if None.
            save_every: Steps between checkpoints.
            is_over: Asked after each step whether to end here; the state is saved first.

        Raises:
            ValueError: The loss is not finite, or the target is out of reach.
        """
        images, labels = self.splits.train.images, self.splits.train.labels
        while self.step < self.steps:
            figures = self._prepare()
            phase, since = self._phase, self.step - self._phase.begin
            indices = batch_indices(self.step, len(images), self.settings.batch_size, self.settings.seed)
            key = jax.random.fold_in(self._key, self.step)
            inputs = phase.penalty_inputs(since)
            state, of_step = self._step(self._state, images[indices], labels[indices], key, self._prices, inputs)
            values = {name: float(value) for name, value in of_step.items()}
            if not math.isfinite(values["loss"]):
                raise ValueError(
                    f"the loss is {values['loss']} at step {self.step + 1}; a lower learning rate of the {phase.name} "
                    "phase may help. Checkpoints are as they were."
                )
            self._state = state
            self.step += 1
            of_penalty = phase.penalty_figures(state.keep_optimizer["penalty"], since) if inputs else {}
            report({"phase": phase.name, **values, **figures, **of_penalty}, self.step)
            is_done = self.step == phase.end
            if is_done:
                self.evaluations[phase.name] = evaluate(self.model)
            ends_here = is_over()
            if checkpoints is not None and (self.step % save_every == 0 or is_done or ends_here):
                checkpoints.save(self.step, *self.snapshot())
            if ends_here:
                return

    def snapshot(self) -> Snapshot:
        """Returns all arrays by name, and plain values about them.

        Raises:
            ValueError: Weights are not finite.
        """
        of_phase, about = self._phase.saved()
        parts = {"state": self._state.arrays(), "prices": self._prices, **of_phase}
        arrays = {f"{part}/{name}": np.asarray(array) for part, named in parts.items() for name, array in named.items()}
        if not all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f"):
            raise ValueError(f"weights are not finite after step {self.step}. Checkpoints are as they were.")
        return arrays, {**about, "phase": self._phase.name, "step": self.step, "evaluations": self.evaluations}

    def restore(self, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Takes over a snapshot of a run of the same settings; in the dense phase, those of sparsity may differ.

        Raises:
            ValueError: The arrays are those of another network.
        """
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            part, _, of_part = name.partition("/")
            parts.setdefault(part, {})[of_part] = np.asarray(array)
        self.step, self.evaluations = about["step"], dict(about["evaluations"])
        self._prices = parts.get("prices", {})
        phase, model = self._phases[PHASES.index(about["phase"])], self.model
        if any(name.startswith("keep/") for name in parts["state"]):
            model.learn(model.weights())  # for the structure alone
        self._begin(phase, model)
        self._state = self._state.with_arrays(parts["state"])
        phase.restore(self.model, parts, about)

    def _begin(self, phase: DensePhase, model: Masked) -> None:
        """Prepares a network, optimizers and the compiled step for a phase."""
        method = self.settings.method
        model.straight_through = phase.name != "dense" and method is not None and method.is_fixed
        self._phase = phase
        self._graph, params, keep, other = split(model)
        optimizer, keep_optimizer, self._step = build_step(
            self._graph,
            self.settings.shared(bool(model.keep)),
            phase.name,
            phase.end - phase.begin,
            self._context.dense_cycles if model.keep else None,
        )
        keep_state = None if keep_optimizer is None else keep_optimizer.init(keep)
        self._state = TrainState(params, keep, other, optimizer.init(params), keep_state)

    def _prepare(self) -> dict[str, Any]:
        """Does what is due before a step; returns figures of it."""
        while self.step >= self._phase.end:
            phase, model = self._phases[self._phases.index(self._phase) + 1], self.model
            phase.enter(model)
            self._begin(phase, model)
        figures, phase, since = {}, self._phase, self.step - self._phase.begin
        if phase.is_due(since):
            model = self.model
            figures = phase.prepare(model, since)
            self._state = self._state.with_model(model)
        if self.settings.activation_penalty and phase.name != "dense" and since % self.settings.calibrate_every == 0:
            self._prices = price_activations(self.model, phase.next_images(since), self.arch)
        return figures
