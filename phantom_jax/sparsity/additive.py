"""Logits that are learned as sums, so that whole filters and channels can go at once."""

from typing import Any

import jax
import optax

from phantom_jax.promotion import promotion


def additive_adam(learning_rate: float) -> optax.GradientTransformation:
    """Returns Adam for logits that are sums of three parts: the weight's, its filter's, its input channel's.

    The parts are not kept: their updates are those that Adam would make of them, and a logit moves by their sum. What
    all weights of a filter, or of an input channel, have to gain or to lose together moves them together, which the
    updates of single weights hide in their noise. This model's choice.

    Parameters are as for `cycle_penalty`: a pytree of arrays `[*kernel, Cin/groups, K]` or `[Cin, K]`. In grouped
    convolutions, the channels of the same place in all groups share a part.

    Args:
        learning_rate: Of each part.
    """
    adam = optax.adam(learning_rate)

    def init(params: Any) -> optax.OptState:
        return adam.init([_parts(leaf) for leaf in jax.tree.leaves(params)])

    @promotion()
    def update(updates: Any, state: optax.OptState, params: Any = None) -> tuple[Any, optax.OptState]:
        del params
        leaves, structure = jax.tree.flatten(updates)
        moved: Any
        moved, state = adam.update([_parts(leaf) for leaf in leaves], state)
        return jax.tree.unflatten(structure, [sum(parts[1:], parts[0]) for parts in moved]), state

    return optax.GradientTransformation(init, update)


def _parts(gradient: jax.Array) -> list[jax.Array]:
    """Returns the gradient of each part; it is that of the logits, summed over those that have the part."""
    others = tuple(range(gradient.ndim - 2))
    of_filters = gradient.sum((*others, -2), keepdims=True)
    if gradient.shape[-2] == 1:
        return [gradient, of_filters]
    return [gradient, of_filters, gradient.sum((*others, -1), keepdims=True)]
