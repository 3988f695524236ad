"""One step of training."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from phantom_jax.proxy import Calibration
from phantom_jax.sparsity import Keep, Masked, additive_adam, cycle_penalty, priced_activity
from phantom_jax.training.data import augment
from phantom_jax.training.settings import Settings

_TAKEN_DECAY = 2e-4  # of N:M's weights that are taken (Zhou et al., arXiv:2102.04010)
Step = Callable[..., tuple[tuple[Any, ...], dict[str, jax.Array]]]
_OTHER = nnx.Not(nnx.Any(nnx.Param, Keep))


def split(model: Masked) -> tuple[Any, Any, Any, Any]:
    """Returns a network's graph, weights, keep logits and the rest: masks, running statistics."""
    graph, params, keep, rest = nnx.split(model, nnx.Param, Keep, ...)
    return graph, params, keep, rest


def merge(graph: Any, params: Any, keep: Any, rest: Any) -> Masked:
    """Returns the network of such parts."""
    return nnx.merge(graph, params, keep, rest, copy=True)


@functools.lru_cache(maxsize=8)
def build_step(
    graph: Any, settings: Settings, phase: str, steps: int, dense_cycles: int | None
) -> tuple[optax.GradientTransformation, optax.GradientTransformationExtraArgs | None, Step]:
    """Returns the optimizers of weights and of keep logits, and a step, compiled in two parts.

    The part that has the proxy takes longest to compile. It hangs on neither the batch nor the phases, so that the next
    run finds it in JAX's cache, also if these differ.

    A step goes from a state and a batch to the next state and figures of the batch. The state is (params, keep, rest,
    state of the optimizer, of that of keep logits); what else it takes are images, labels, a random key, and, where
    keep logits are learned, a calibration and a target, else None, and what the method prices weights by, and prices of
    activations, none where they are not penalized.
    Runs that differ in targets and seeds share it.

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
        penalty = cycle_penalty(dense_cycles, 1.0, settings.penalty, settings.gain, settings.damping)
        keep_optimizer = optax.with_extra_args_support(optax.chain(penalty, additive_adam(settings.logit_rate)))

    @jax.jit
    def train(
        state: tuple[Any, ...], images: jax.Array, labels: jax.Array, key: jax.Array, prices: Mapping[str, jax.Array]
    ) -> tuple[tuple[Any, ...], Any, dict[str, jax.Array]]:
        params, keep, rest, optimizer_state = state
        augment_key, draw_key = jax.random.split(key)
        images = augment(augment_key, images, shift=settings.shift, flip=settings.flip)

        def loss(trained: tuple[Any, Any]) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
            model, figures = merge(graph, *trained, rest), {}
            if prices:
                logits, inputs = model.with_inputs(images, key=draw_key)
                figures["activity"] = priced_activity(inputs, prices)
            else:
                logits = model(images, key=draw_key)
            value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            figures["accuracy"] = (logits.argmax(-1) == labels).mean()
            if model.straight_through:
                value += _TAKEN_DECAY / 2 * _taken(model)
            if prices:
                value += settings.activation_penalty * figures["activity"]
            return value, (nnx.state(model, _OTHER), figures)

        (value, (rest, figures)), gradient = jax.value_and_grad(loss, has_aux=True)((params, keep))
        updates, optimizer_state = optimizer.update(gradient[0], optimizer_state, params)
        params = optax.apply_updates(params, updates)
        figures |= {"loss": value, "density": merge(graph, params, keep, rest).density()}
        return (params, rest, optimizer_state), gradient[1], figures

    @jax.jit
    def learn(gradient: Any, keep: Any, keep_state: Any, extra: Mapping[str, Any]) -> tuple[Any, Any]:
        assert keep_optimizer is not None
        updates, keep_state = keep_optimizer.update(gradient, keep_state, keep, **extra)
        return optax.apply_updates(keep, updates), keep_state

    def step(
        state: tuple[Any, ...],
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        calibration: Calibration | None,
        target: np.float32 | None,
        priced_by: Mapping[str, Any],
        prices: Mapping[str, jax.Array],
    ) -> tuple[tuple[Any, ...], dict[str, jax.Array]]:
        params, keep, rest, optimizer_state, keep_state = state
        trained, gradient, figures = train((params, keep, rest, optimizer_state), images, labels, key, prices)
        if keep_optimizer is not None:
            extra = {"calibration": calibration, "target": target, **priced_by}
            keep, keep_state = learn(gradient, keep, keep_state, extra)
        params, rest, optimizer_state = trained
        return (params, keep, rest, optimizer_state, keep_state), figures

    return optimizer, keep_optimizer, step


def _taken(model: Masked) -> jax.Array:
    """Returns the sum of squares of weights that are taken."""
    weights = model.weights()
    return jnp.stack(
        [(jnp.where(model.masks[name].get_value(), 0, weights[name]) ** 2).sum() for name in model.names]
    ).sum()
