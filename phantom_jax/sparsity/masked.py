"""A network whose weights are masked."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from phantom_jax.sparsity.functional import draw_masks
from phantom_jax.sparsity.named import Shape, arrays_by_name
from phantom_jax.tracing import Traced, read_inputs, trace

Path = tuple[Any, ...]  # of a variable in a network's state


class Mask(nnx.Variable):
    """Which weights of a layer are left, boolean."""


class Keep(nnx.Variable):
    """Logits of the probabilities with which a layer's weights are kept; learned."""


class Masked(nnx.Module):
    """A network with a `Mask` for the weights of each of its layers; called as the network is.

    Layers are the convolutions and dense products that `phantom_jax.tracing` finds, with the names that it gives them.
    The network's own weights stay as they are, so a mask may give back what it took.

    Attributes:
        network: The network, with its weights and whatever else it holds.
        masks: By name of layer; all ones at first.
        keep: Likewise, empty until `learn` is called.
        straight_through: Whether gradients reach masked weights as if they were not masked.
    """

    def __init__(self, network: nnx.Module, *args: Any) -> None:
        """Finds the layers, and runs the network once more to see that masks reach them.

        Args:
            network: A callable module; it is kept, not copied.
            *args: What to call it with, such as a few images.

        Raises:
            ValueError: `network` is not a callable module, has no layer, runs other layers with other weights, or a
                layer's weights are not one parameter of its own, of the same shape, whose zeros are theirs.
        """
        if not isinstance(network, nnx.Module) or not callable(network):
            raise ValueError(f"network must be a flax.nnx.Module that can be called, got {type(network).__name__}.")
        traced = trace(_in_evaluation(network), *args)
        self.network = network
        self._paths = _find_parameters(network, traced)
        self.masks = nnx.Dict({name: Mask(jnp.ones(shape, bool)) for name, shape in self._shapes().items()})
        self.keep = nnx.Dict()
        self.straight_through = False
        self._check_reach(*args)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(name for name, _ in self._paths)

    @property
    def paths(self) -> dict[str, Path]:
        """The path of each layer's weights in the network's state."""
        return dict(self._paths)

    def weights(self) -> dict[str, jax.Array]:
        """Returns the weights of each layer, without masks."""
        state = dict(nnx.to_flat_state(nnx.state(self.network, nnx.Param)))
        return {name: state[path].get_value() for name, path in self._paths}

    def learn(self, logits: Mapping[str, Any]) -> None:
        """Lets keep probabilities be learned.

        Args:
            logits: By layer, arrays of its weights' shape.

        Raises:
            ValueError: `logits` lack a layer, hold an unknown one, or an array is of another shape or holds NaN.
        """
        arrays = arrays_by_name("logits", logits, self._shapes())
        self.keep = nnx.Dict({name: Keep(jnp.asarray(array, jnp.float32)) for name, array in arrays.items()})

    def probabilities(self) -> list[jax.Array]:
        """Returns the probability of each weight to be kept, by layer, as `expected_cycles_from` takes them."""
        if not self.keep:
            return [self.masks[name].get_value().astype(jnp.float32) for name in self.names]
        return [jax.nn.sigmoid(self.keep[name].get_value()) for name in self.names]

    def set_masks(self, masks: Mapping[str, Any]) -> None:
        """Sets all masks, and ends the learning of keep probabilities.

        Args:
            masks: By layer, of its weights' shape; an element other than 0 keeps a weight.

        Raises:
            ValueError: `masks` lack a layer, hold an unknown one, or an array is of another shape or holds NaN.
        """
        for name, array in arrays_by_name("masks", masks, self._shapes()).items():
            self.masks[name].set_value(jnp.asarray(array != 0))
        self.keep = nnx.Dict()

    def density(self) -> jax.Array:
        """Returns the share of weights that are kept, expected if probabilities are learned."""
        probabilities = self.probabilities()
        return jnp.stack([p.sum() for p in probabilities]).sum() / sum(p.size for p in probabilities)

    def __call__(self, *args: Any, key: jax.Array | None = None, **options: Any) -> Any:
        """Calls the network with masked weights.

        Args:
            *args: As the network takes them.
            key: Where keep probabilities are learned, a random key to draw masks with; without one, weights are kept
                whose probability is above one half.
            **options: As the network takes them.

        Raises:
            ValueError: Keep probabilities are learned, and `key` is something else.
        """
        network = self._with_kernels(self._kernels(key))
        outputs = network(*args, **options)
        nnx.update(self.network, nnx.state(network, nnx.Not(nnx.Param)))  # running statistics and the like
        return outputs

    def with_inputs(self, *args: Any, key: jax.Array | None = None, **options: Any) -> tuple[Any, dict[str, jax.Array]]:
        """Calls the network, and returns what its layers read as well; can be differentiated and jitted.

        Args:
            *args: As the network takes them.
            key: As when it is called.
            **options: As the network takes them.

        Returns:
            The network's outputs; and by layer, its input: `[B, *spatial, Cin]` for a convolution, `[..., Cin]` for a
            dense layer.

        Raises:
            ValueError: As when it is called; or a layer runs in a condition or a scan, where its input cannot be seen.
        """

        def run(kernels: Mapping[str, jax.Array]) -> tuple[Any, Any]:
            network = self._with_kernels({path: kernels[name] for name, path in self._paths})
            return network(*args, **options), nnx.state(network, nnx.Not(nnx.Param))

        kernels = self._kernels(key)
        (outputs, state), inputs = read_inputs(run, {name: kernels[path] for name, path in self._paths})
        nnx.update(self.network, state)
        return outputs, inputs

    def trace(self, *args: Any) -> Traced:
        """Returns the layers of the masked network in evaluation, as `phantom_jax.tracing` does."""
        return trace(_in_evaluation(self._with_kernels(self._kernels(None))), *args)

    def _shapes(self) -> dict[str, Shape]:
        return {name: values.shape for name, values in self.weights().items()}

    def _check_reach(self, *args: Any) -> None:
        """Refuses networks in which a mask is not that of its layer: weights transposed, shifted by their mean."""
        rng = np.random.default_rng(0)
        weights, bits, kernels = self.weights(), {}, {}
        for name, path in self._paths:
            shape = weights[name].shape
            bits[name] = rng.random(shape) < 0.5
            values = rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1]))  # as none may be 0 by itself
            kernels[path] = jnp.asarray(values * bits[name], weights[name].dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what is skipped: raised before
            traced = trace(_in_evaluation(self._with_kernels(kernels)), *args)
        if tuple(str(layer.name) for layer in traced) != self.names:
            raise ValueError(
                f"network must run the same layers whatever its weights are; those of {', '.join(self.names)} changed, "
                f"{traced!r} ran."
            )
        for layer in traced:
            if (layer.weights & ~bits[str(layer.name)]).any():
                raise ValueError(
                    f"network must use the weights of each layer as they are, or scaled, so that masks reach it; those "
                    f"of {layer.name} are moved or shifted before."
                )

    def _with_kernels(self, kernels: Mapping[Path, jax.Array]) -> Any:
        graph, params, rest = nnx.split(self.network, nnx.Param, ...)
        flat = {
            path: variable.replace(kernels[path]) if path in kernels else variable
            for path, variable in nnx.to_flat_state(params)
        }
        return nnx.merge(graph, nnx.from_flat_state(flat), rest, copy=True)

    def _kernels(self, key: jax.Array | None) -> dict[Path, jax.Array]:
        learned = {name: self.keep[name].get_value() for name in self.names} if self.keep else {}
        bits = draw_masks(learned, key) if learned else {name: self.masks[name].get_value() for name in self.names}
        weights = self.weights()
        kernels = {}
        for name, path in self._paths:
            values = weights[name]
            kept = bits[name].astype(values.dtype)
            if self.straight_through:
                fixed = jax.lax.stop_gradient(values)
                kernels[path] = fixed * kept + (values - fixed)
            else:
                kernels[path] = values * kept
        return kernels


def _in_evaluation(network: nnx.Module) -> Any:
    """Returns a copy of a module in evaluation, which shares its arrays."""
    copy = nnx.clone(network)
    copy.eval()
    return copy


def _find_parameters(network: nnx.Module, traced: Traced) -> tuple[tuple[str, Path], ...]:
    """Returns the name of each layer and the path of its weights in the network's state."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(network, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))
    params = {keys: leaf for keys, leaf in leaves if isinstance(leaf, nnx.Param)}  # one that is shared, more than once
    paths = {id(variable): path for path, variable in nnx.iter_graph(network) if isinstance(variable, nnx.Param)}
    found: dict[Path, str] = {}
    for layer, source in zip(traced, traced.sources, strict=True):
        name = str(layer.name)
        # A source is the key path in (network, *args) of the variable's `.value`.
        param = params.get(source[1:-1]) if source is not None and source[0].idx == 0 else None
        if param is None or param.get_value().shape != layer.weights.shape:
            given = "no such parameter" if param is None else f"a parameter of shape {param.get_value().shape}"
            raise ValueError(
                "network must have a parameter with the weights of each layer, as flax.nnx.Conv and Linear have; layer "
                f"{name} of shape {layer.weights.shape} has {given}."
            )
        path = paths[id(param)]
        if path in found:
            raise ValueError(f"network must not use weights twice; {name} has those of {found[path]}.")
        found[path] = name
    if not found:
        raise ValueError("network must have a convolution or dense product; tracing it found none.")
    return tuple((name, path) for path, name in found.items())
