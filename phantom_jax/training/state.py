"""What a step of training changes, and its arrays by name, as checkpoints hold them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from phantom_jax.sparsity import Keep, Masked

OTHER = nnx.Not(nnx.Any(nnx.Param, Keep))  # variables of a network that are not trained


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The network's variables and the states of its optimizers."""

    params: Any  # weights
    keep: Any  # logits of keep probabilities, where they are learned
    other: Any  # masks, running statistics
    optimizer: Any
    keep_optimizer: Any  # None where no logits are learned

    def model(self, graph: Any) -> Masked:
        """Returns the network, a copy."""
        return nnx.merge(graph, self.params, self.keep, self.other, copy=True)

    def with_model(self, model: Masked) -> "TrainState":
        """Returns the state with a network's variables in place of its own."""
        _, params, keep, other = split(model)
        return dataclasses.replace(self, params=params, keep=keep, other=other)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all arrays by their names."""
        return {name: np.asarray(leaf) for name, leaf in zip(self._names(), jax.tree.leaves(self), strict=True)}

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> "TrainState":
        """Returns a state of the same structure with other arrays.

        Raises:
            ValueError: Arrays are missing, unknown or of other shapes, so they are those of another network.
        """
        shapes = dict(zip(self._names(), map(np.shape, jax.tree.leaves(self)), strict=True))
        given = {name: array.shape for name, array in arrays.items()}
        if wrong := sorted(name for name in {*shapes, *given} if shapes.get(name) != given.get(name)):
            name = wrong[0]
            raise ValueError(
                f"arrays must be those of this network and its optimizers: {name} must be of shape {shapes.get(name)}, "
                f"got {given.get(name)}; {len(wrong)} of {len(shapes)} differ."
            )
        leaves = [jax.numpy.asarray(arrays[name]) for name in shapes]
        return jax.tree.unflatten(jax.tree.structure(self), leaves)

    def _names(self) -> list[str]:
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(self)]
        return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def split(model: Masked) -> tuple[Any, Any, Any, Any]:
    """Returns a network's graph, weights, keep logits and other variables."""
    graph, params, keep, other = nnx.split(model, nnx.Param, Keep, ...)
    return graph, params, keep, other
