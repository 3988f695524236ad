"""The order of channels, which a trained network leaves free, chosen for few exact cycles."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from phantom_jax.arch import Phantom2D, check_arch
from phantom_jax.checks import integer
from phantom_jax.exact import simulate
from phantom_jax.layer import Layer
from phantom_jax.sparsity import Masked, layers_by_name
from phantom_jax.training.networks import VGG, MobileNet

_TOLERANCE = 1e-3  # of the largest output, between sums in another order


@dataclasses.dataclass(frozen=True)
class Channels:
    """Channels that may be in any order, as long as all that knows them follows.

    Attributes:
        producers: Layers whose filters they are, in the order in which they run; those after the first are depthwise.
        consumers: Layers that read them as input channels, once or, behind a flattening, once for each position.
        modules: Other modules of the network with a value for each, such as normalizations: paths of attributes.
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    modules: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Reordered:
    """A network in another order.

    Attributes:
        model: The network; its outputs are those of the one that was given, but for rounding.
        orders: For each of the channels that were given, which one comes first, second, ...
        before: Exact cycles of each image, int64 [B].
        after: Likewise, in the new order; their sum is never larger.
    """

    model: Masked
    orders: tuple[np.ndarray, ...]
    before: np.ndarray
    after: np.ndarray


def channels_of(network: nnx.Module) -> list[Channels]:
    """Returns what may be ordered in a network of `phantom_jax.training.networks`.

    Raises:
        ValueError: `network` is not one of these networks.
    """
    if isinstance(network, VGG):
        names = [name for stage in network.stages for name in stage]
        runs = [(name,) for name in (*names, *network.dense)]
    elif isinstance(network, MobileNet):
        first, *pairs = network.names  # a depthwise layer and a pointwise one in turn
        heads = [first, *pairs[1::2]]
        runs = [*zip(heads, pairs[::2], strict=False), (heads[-1],), ("fc",)]
    else:
        raise ValueError(f"network must be one of phantom_jax.training.networks, got {type(network).__name__}.")
    return [Channels(run, (after[0],), _norms(network, run)) for run, after in itertools.pairwise(runs)]


def _norms(network: nnx.Module, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple((f"{name}_norm",) for name in names if hasattr(network, f"{name}_norm"))


def reorder(
    model: Masked, channels: Sequence[Channels], images: Any, arch: Phantom2D, swaps: int = 100, seed: int = 0
) -> Reordered:
    """Returns a network whose channels are ordered for few exact cycles on images, without training.

    This model's choice: each of the channels in turn starts from the best of a few orders by density, and keeps those
    of a number of random swaps that do not cost cycles.

    Args:
        model: The network with its masks; it stays as it is.
        channels: What may be ordered.
        images: A few images, `[B, H, W, C]`.
        arch: The accelerator.
        swaps: That are tried for each of the channels.
        seed: Of the swaps.

    Raises:
        ValueError: `model` is not a masked network or still learns what to keep, `channels` name what it does not have
            or omit a layer or module that uses these channels, so that outputs change, or another argument is not
            valid.
    """
    if not isinstance(model, Masked) or model.keep:
        raise ValueError(f"model must be a Masked network with masks that are set, got {type(model).__name__}.")
    check_arch(arch)
    integer("swaps", swaps, minimum=0)
    rng = np.random.default_rng(integer("seed", seed, minimum=0))
    traced = model.trace(images)
    layers = layers_by_name(traced)
    before = simulate(list(layers.values()), arch).cycles
    orders = []
    for index, of in enumerate(channels):
        size = _check(f"channels[{index}]", of, layers)
        order = _search(of, layers, size, arch, swaps, rng)
        layers = {name: _permuted(layer, of, order) for name, layer in layers.items()}
        orders.append(order)
    changed = _apply(model, channels, orders)
    new = changed.trace(images)
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(traced.outputs))
    for old_leaf, new_leaf in zip(jax.tree.leaves(traced.outputs), jax.tree.leaves(new.outputs), strict=True):
        if not np.abs(np.asarray(old_leaf) - np.asarray(new_leaf)).max() <= _TOLERANCE * scale:
            raise ValueError("channels must name all that knows them: in another order, the network's outputs change.")
    after = simulate(new, arch).cycles
    if after.sum() > before.sum():  # rounding has made activations of zeros, more than the order saves
        return Reordered(model, tuple(np.arange(len(order)) for order in orders), before, before)
    return Reordered(changed, tuple(orders), before, after)


def _check(argument: str, of: Channels, layers: Mapping[str, Layer]) -> int:
    """Returns how many channels there are."""
    for name in (*of.producers, *of.consumers):
        if name not in layers:
            raise ValueError(f"{argument} must name layers of the model ({', '.join(layers)}), got {name}.")
    if not of.producers or not of.consumers:
        raise ValueError(f"{argument} must have producers and consumers, got {of.producers} and {of.consumers}.")
    size = layers[of.producers[0]].filters
    for name in of.producers[1:]:
        layer = layers[name]
        if not layer.feature_group_count == layer.filters == size:
            raise ValueError(
                f"{argument}: producers after the first must be depthwise layers of {size} filters: {name}."
            )
    for name in of.consumers:
        layer = layers[name]
        if layer.feature_group_count != 1 or layer.weights.shape[-2] % size:
            raise ValueError(f"{argument}: consumers must be layers without groups that read {size} channels: {name}.")
    return size


def _search(
    of: Channels, layers: Mapping[str, Layer], size: int, arch: Phantom2D, swaps: int, rng: np.random.Generator
) -> np.ndarray:
    touched = [layers[name] for name in dict.fromkeys((*of.producers, *of.consumers))]

    def cycles(order: np.ndarray) -> int:
        return int(simulate([_permuted(layer, of, order) for layer in touched], arch).cycles.sum())

    read = np.zeros((2, size))
    for name in of.consumers:
        layer = layers[name]
        weights = np.asarray(layer.weights != 0)
        read[0] += weights.sum(-1).reshape(-1, size).sum(0)
        read[1] += np.asarray(layer.activations != 0).reshape(-1, size).sum(0)
    filters = np.asarray(layers[of.producers[0]].weights != 0).reshape(-1, size).sum(0)
    best = np.arange(size)
    least = cycles(best)
    for density in (*read, read[0] * read[1], filters):
        ranks = np.argsort(-density, kind="stable")
        dealt = np.concatenate([ranks[start :: arch.slots] for start in range(arch.slots)])
        for order in (ranks, dealt):
            found = cycles(order)
            if found < least:
                best, least = order, found
    for _ in range(swaps if size > 1 else 0):
        order, pair = best.copy(), rng.choice(size, 2, replace=False)
        order[pair] = order[pair[::-1]]
        found = cycles(order)
        if found <= least:
            best, least = order, found
    return best


def _expanded(order: np.ndarray, size: int) -> np.ndarray:
    """Returns the order of an axis that has the channels once for each position."""
    return (np.arange(size // len(order))[:, None] * len(order) + order).ravel()


def _permuted(layer: Layer, of: Channels, order: np.ndarray) -> Layer:
    """Returns a layer's masks in another order of channels that it may know."""
    weights, activations = np.asarray(layer.weights), np.asarray(layer.activations)
    if layer.name in of.producers:
        weights = weights[..., order]
    if layer.name in of.producers[1:]:
        activations = activations[..., order]
    if layer.name in of.consumers:
        weights = weights[..., _expanded(order, weights.shape[-2]), :]
        activations = activations[..., _expanded(order, activations.shape[-1])]
    return dataclasses.replace(layer, weights=weights, activations=activations)


def _apply(model: Masked, channels: Sequence[Channels], orders: Sequence[np.ndarray]) -> Masked:
    """Returns a copy of the network with all that knows the channels in their orders."""
    graph, state = nnx.split(model)
    flat = dict(nnx.to_flat_state(state))

    def take(path: tuple[Any, ...], order: np.ndarray, axis: int) -> None:
        variable = flat[path]
        flat[path] = variable.replace(np.take(np.asarray(variable.get_value()), order, axis))

    kernels = model.paths
    for of, order in zip(channels, orders, strict=True):
        for name in of.producers:
            take(("masks", name), order, -1)
            take(("network", *kernels[name]), order, -1)
        for name in of.consumers:
            rows = _expanded(order, flat["masks", name].get_value().shape[-2])
            take(("masks", name), rows, -2)
            take(("network", *kernels[name]), rows, -2)
        homes = [("network", *kernels[name][:-1]) for name in of.producers]
        homes += [("network", *path) for path in of.modules]
        for path, variable in list(flat.items()):
            if any(path[: len(home)] == home for home in homes) and variable.get_value().shape == order.shape:
                take(path, order, 0)
    return nnx.merge(graph, nnx.from_flat_state(flat), copy=True)
