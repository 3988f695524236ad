"""Adam for logits that are sums of parts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phantom_jax.sparsity import additive_adam

SHAPES = ((3, 3, 4, 5), (4, 5), (3, 3, 1, 5))


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_move_as_sums_of_parts_do_under_adam(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    target = jnp.asarray(rng.normal(size=shape), jnp.float32)
    logits = jnp.asarray(rng.normal(size=shape), jnp.float32)
    filters, channels = (*(1,) * (len(shape) - 1), shape[-1]), (*(1,) * (len(shape) - 2), shape[-2], 1)
    parts: Any = {"own": logits, "filter": jnp.zeros(filters)}
    if shape[-2] > 1:  # of one channel alone, the channel is the layer
        parts["channel"] = jnp.zeros(channels)

    def loss(values: jax.Array) -> jax.Array:
        return ((values - target) ** 4).sum()

    ours, adam = additive_adam(0.1), optax.adam(0.1)
    state, adam_state = ours.init({"layer": logits}), adam.init(parts)
    for _ in range(5):
        updates: Any
        updates, state = ours.update({"layer": jax.grad(loss)(logits)}, state)
        logits = logits + updates["layer"]
        of_parts = jax.grad(lambda parts: loss(sum(parts.values(), jnp.zeros(shape))))(parts)
        part_updates, adam_state = adam.update(of_parts, adam_state)
        parts = optax.apply_updates(parts, part_updates)
        np.testing.assert_allclose(logits, sum(parts.values(), jnp.zeros(shape)), rtol=1e-4, atol=1e-4)


def test_a_filter_that_only_costs_goes_as_a_whole() -> None:
    logits: Any = {"layer": jnp.zeros((3, 3, 4, 5))}
    cost = jnp.zeros((3, 3, 4, 5)).at[..., 2].set(1.0)
    noise = np.random.default_rng(1)
    ours = additive_adam(0.1)
    state = ours.init(logits)
    for _ in range(100):
        gradient = {"layer": cost + jnp.asarray(noise.normal(0, 10, cost.shape), jnp.float32)}
        updates: Any
        updates, state = ours.update(gradient, state)
        logits = optax.apply_updates(logits, updates)
    of_filters = logits["layer"].mean((0, 1, 2))
    assert of_filters[2] < of_filters.min(where=np.arange(5) != 2, initial=0.0) - 1
