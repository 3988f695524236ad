"""One step of training."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from phantom_jax.sparsity import CycleAware, Masked, additive_adam, cycle_penalty, priced_activity
from phantom_jax.training.data import augment
from phantom_jax.training.settings import Settings
from phantom_jax.training.state import OTHER, TrainState

_REMOVED_DECAY = 2e-4  # of weights that N:M removes (Zhou et al., arXiv:2102.04010)
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


@functools.lru_cache(maxsize=8)
def build_step(
    graph: Any, settings: Settings, phase: str, steps: int, dense_cycles: int | None
) -> tuple[optax.GradientTransformation, optax.GradientTransformationExtraArgs | None, Step]:
    """Returns the optimizers of weights and of keep logits, and a step, compiled in two parts.

    The part that has the proxy takes longest to compile. It depends on neither the batch nor the phases, so the next
    run finds it in JAX's cache even if these differ.

    A step takes a state, images, labels, a random key, prices of activations, empty where they are not penalized, and
    the inputs of the penalty, empty where no keep logits are learned. It returns the next state and figures of the
    batch. Runs that differ in targets and seeds share it.

    Args:
        graph: Of the network.
        settings: Of the run; `shared` leaves out what does not matter here.
        phase: Of training.
        steps: Of the phase.
        dense_cycles: Of the network; None where no keep logits are learned.
    """
    optimizer = settings.weights_optimizer(phase, steps)
    keep_optimizer = None
    if dense_cycles is not None:
        cost = settings.method.cost if isinstance(settings.method, CycleAware) else None
        penalty = cycle_penalty(dense_cycles, 1.0, cost, settings.penalty, settings.gain, settings.damping)
        keep_optimizer = optax.with_extra_args_support(
            optax.named_chain(("penalty", penalty), ("adam", additive_adam(settings.logit_rate)))
        )

    @jax.jit
    def train(
        state: TrainState, images: jax.Array, labels: jax.Array, key: jax.Array, prices: Mapping[str, jax.Array]
    ) -> tuple[TrainState, Any, dict[str, jax.Array]]:
        augment_key, draw_key = jax.random.split(key)
        images = augment(augment_key, images, shift=settings.shift, flip=settings.flip)

        def loss(trained: tuple[Any, Any]) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
            model, figures = dataclasses.replace(state, params=trained[0], keep=trained[1]).model(graph), {}
            if prices:
                logits, inputs = model.with_inputs(images, key=draw_key)
                figures["activity"] = priced_activity(inputs, prices)
            else:
                logits = model(images, key=draw_key)
            value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            figures["accuracy"] = (logits.argmax(-1) == labels).mean()
            if model.straight_through:
                value += _REMOVED_DECAY / 2 * _squares_of_removed(model)
            if prices:
                value += settings.activation_penalty * figures["activity"]
            return value, (nnx.state(model, OTHER), figures)

        (value, (other, figures)), gradient = jax.value_and_grad(loss, has_aux=True)((state.params, state.keep))
        updates, optimizer_state = optimizer.update(gradient[0], state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        state = dataclasses.replace(state, params=params, other=other, optimizer=optimizer_state)
        return state, gradient[1], figures | {"loss": value, "density": state.model(graph).density()}

    @jax.jit
    def learn(gradient: Any, keep: Any, keep_state: Any, extra: Mapping[str, Any]) -> tuple[Any, Any]:
        assert keep_optimizer is not None
        updates, keep_state = keep_optimizer.update(gradient, keep_state, keep, **extra)
        return optax.apply_updates(keep, updates), keep_state

    def step(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        prices: Mapping[str, jax.Array],
        penalty_inputs: Mapping[str, Any],
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        trained, gradient, figures = train(state, images, labels, key, prices)
        if keep_optimizer is not None:
            keep, keep_state = learn(gradient, state.keep, state.keep_optimizer, penalty_inputs)
            trained = dataclasses.replace(trained, keep=keep, keep_optimizer=keep_state)
        return trained, figures

    return optimizer, keep_optimizer, step


def _squares_of_removed(model: Masked) -> jax.Array:
    """Returns the sum of squares of masked weights."""
    weights = model.weights()
    return jnp.stack(
        [(jnp.where(model.masks[name].get_value(), 0, weights[name]) ** 2).sum() for name in model.names]
    ).sum()
