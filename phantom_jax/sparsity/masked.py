"""A network whose weights are masked."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from phantom_jax.trace import Traced, trace

Path = tuple[Any, ...]  # of a variable in a network's state


class Mask(nnx.Variable):
    """Which weights of a layer are left, boolean."""


class Keep(nnx.Variable):
    """Logits of the probabilities with which a layer's weights are kept; learned."""


class Masked(nnx.Module):
    """A network with a `Mask` for the weights of each of its layers; called as the network is.

    Layers are the convolutions and dense products that `phantom_jax.trace` finds, with the names that it gives them.
    The network's own weights stay as they are, so a mask may give back what it took.

    Attributes:
        network: The network, with its weights and whatever else it holds.
        masks: By name of layer; all ones at first.
        keep: Likewise, empty until `learn` is called.
        straight_through: Whether gradients reach masked weights as if they were not masked.
    """

    def __init__(self, network: nnx.Module, *args: Any) -> None:
        """Finds the layers.

        Args:
            network: A callable module.
            *args: What to call it with, such as a few images.

        Raises:
            ValueError: The weights of a layer are not a parameter of the network, or one that several layers share.
        """
        with _in_evaluation(network):
            traced = trace(network, *args)
        known = dict(nnx.to_flat_state(nnx.state(network, nnx.Param)))
        paths: dict[str, Path] = {}
        for layer, source in zip(traced, traced.sources, strict=True):
            name = str(layer.name)
            path = None if source is None else _state_path(source)
            if path not in known or known[path].get_value().shape != layer.weights.shape:
                raise ValueError(
                    f"network must have a parameter with the weights of each layer, as flax.nnx.Conv and Linear have; "
                    f"those of {name} are none, or of another shape than {layer.weights.shape}."
                )
            if path in paths.values():
                raise ValueError(f"network must not use weights twice; {name} has those of an earlier layer.")
            paths[name] = path
        if not paths:
            raise ValueError("network must have a convolution or dense product; tracing it found none.")
        self.network = network
        self.paths = paths
        self.masks = nnx.Dict(
            {name: Mask(jnp.ones(known[path].get_value().shape, bool)) for name, path in paths.items()}
        )
        self.keep = nnx.Dict()
        self.straight_through = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(self.paths)

    def weights(self) -> dict[str, jax.Array]:
        """Returns the weights of each layer, without masks."""
        state = dict(nnx.to_flat_state(nnx.state(self.network, nnx.Param)))
        return {name: state[path].get_value() for name, path in self.paths.items()}

    def learn(self, logits: Mapping[str, Any]) -> None:
        """Lets keep probabilities be learned.

        Args:
            logits: By layer, arrays of its weights' shape.
        """
        self.keep = nnx.Dict({name: Keep(jnp.asarray(logits[name], jnp.float32)) for name in self.names})

    def probabilities(self) -> list[jax.Array]:
        """Returns the probability of each weight to be kept, by layer, as `expected_cycles_from` takes them."""
        if not self.keep:
            return [self.masks[name].get_value().astype(jnp.float32) for name in self.names]
        return [jax.nn.sigmoid(self.keep[name].get_value()) for name in self.names]

    def set_masks(self, masks: Mapping[str, Any]) -> None:
        """Sets all masks, and ends the learning of keep probabilities.

        Args:
            masks: By layer, of its weights' shape; an element other than 0 keeps a weight.
        """
        for name in self.names:
            self.masks[name].set_value(jnp.asarray(np.asarray(masks[name]) != 0))
        self.keep = nnx.Dict()

    def density(self) -> jax.Array:
        """Returns the share of weights that are kept, expected if probabilities are learned."""
        probabilities = self.probabilities()
        return jnp.stack([p.sum() for p in probabilities]).sum() / sum(p.size for p in probabilities)

    def __call__(self, *args: Any, key: jax.Array | None = None) -> Any:
        """Calls the network with masked weights.

        Args:
            *args: As the network takes them.
            key: Where keep probabilities are learned, a random key to draw masks with; without one, weights are kept
                whose probability is above one half.
        """
        network = self._with_kernels(self._kernels(key))
        outputs = network(*args)
        nnx.update(self.network, nnx.state(network, nnx.Not(nnx.Param)))  # running statistics and the like
        return outputs

    def trace(self, *args: Any) -> Traced:
        """Returns the layers of the masked network in evaluation, as `phantom_jax.trace` does."""
        with _in_evaluation(self.network):
            return trace(self._with_kernels(self._kernels(None)), *args)

    def _with_kernels(self, kernels: Mapping[Path, jax.Array]) -> Callable[..., Any]:
        graph, params, rest = nnx.split(self.network, nnx.Param, ...)
        flat = {
            path: variable.replace(kernels[path]) if path in kernels else variable
            for path, variable in nnx.to_flat_state(params)
        }
        return nnx.merge(graph, nnx.from_flat_state(flat), rest, copy=True)

    def _kernels(self, key: jax.Array | None) -> dict[Path, jax.Array]:
        keys = [None] * len(self.names) if key is None else list(jax.random.split(key, len(self.names)))
        weights = self.weights()
        kernels = {}
        for name, layer_key in zip(self.names, keys, strict=True):
            bits = _drawn(self.keep[name].get_value(), layer_key) if self.keep else self.masks[name].get_value()
            values = weights[name]
            masked = values * bits
            kernels[self.paths[name]] = (
                values + jax.lax.stop_gradient(masked - values) if self.straight_through else masked
            )
        return kernels


_TEMPERATURE = 0.5  # of the relaxed bit that gradients go through


def _drawn(logits: jax.Array, key: jax.Array | None) -> jax.Array:
    """Draws bits with probabilities sigmoid(logits); their gradient is that of relaxed ones (binary concrete).

    Straight-through: Maddison et al., arXiv:1611.00712, and Jang et al., arXiv:1611.01144.
    """
    if key is not None:
        logits = logits + jax.random.logistic(key, logits.shape)
    relaxed = jax.nn.sigmoid(logits / _TEMPERATURE)
    return relaxed + jax.lax.stop_gradient((logits > 0) - relaxed)


class _in_evaluation:  # noqa: N801, used as a function is
    """Puts a module and all in it into evaluation, and each back as it was."""

    def __init__(self, network: nnx.Module) -> None:
        self._attributes = [
            (module, name, getattr(module, name))
            for _, module in nnx.iter_modules(network)
            for name in ("deterministic", "use_running_average")
            if hasattr(module, name)
        ]

    def __enter__(self) -> None:
        for module, name, _ in self._attributes:
            setattr(module, name, True)

    def __exit__(self, *_: object) -> None:
        for module, name, value in self._attributes:
            setattr(module, name, value)


def _state_path(source: Path) -> Path:
    """Returns the path in the state of the key path of (network, *args)."""
    parts = [getattr(key, "name", getattr(key, "key", getattr(key, "idx", None))) for key in source[1:]]
    return tuple(parts[:-1] if parts and parts[-1] == "value" else parts)
