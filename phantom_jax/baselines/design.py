"""What all baselines share: layers in, a report out; arrays of about a wanted number of multipliers (SPEC 9)."""

import abc
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from phantom_jax.checks import boolean, integer
from phantom_jax.exact import enable_cache, overlapped
from phantom_jax.layer import Layer, check_layers, nonzero
from phantom_jax.report import LayerReport, Report
from phantom_jax.windows import kernel_index, pad_spatial, tap_slices

_STRETCH = 2  # how far the sides of a scaled array may be from the published proportion


@dataclasses.dataclass(frozen=True)
class Count:
    """What one image of a layer takes: cycles, and where the slots of all multipliers went in them."""

    cycles: int
    stack: Mapping[str, int]  # all components but `effectual`
    effectual_in: str  # the component that effectual MACs are still part of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design(abc.ABC):
    """An accelerator as a cycle model.

    Attributes:
        equal_multipliers: None, or the number of multipliers that results are for: cycles are scaled by the ratio of
            the array's multipliers to this number and rounded up, per layer and image. The slots that rounding adds
            are the component `rounding` of the stack.
    """

    equal_multipliers: int | None = None

    def __post_init__(self) -> None:
        """Validates every parameter."""
        if self.equal_multipliers is not None:
            self._check_integer("equal_multipliers")

    @property
    @abc.abstractmethod
    def array_multipliers(self) -> int:
        """Multipliers of the array."""

    @abc.abstractmethod
    def supports(self, layer: Layer) -> bool:
        """Whether the published design runs such a layer."""

    @abc.abstractmethod
    def counter(self, layer: Layer) -> Callable[[int], Count]:
        """Returns what counts an image of a layer.

        Raises:
            ValueError: No rule covers such a layer.
        """

    @property
    def reported_multipliers(self) -> int:
        """Multipliers that results are for."""
        return self.array_multipliers if self.equal_multipliers is None else self.equal_multipliers

    def simulate(self, layers: Layer | Iterable[Layer]) -> Report:
        """Counts the exact cycles that layers take on this design, and where every slot of its multipliers goes.

        Args:
            layers: One layer or several; all with the same number of images B. Taken as they are needed, so a
                generator keeps few layers' masks in memory, and wrapping it in a progress bar shows progress.

        Returns:
            A report with int64 results of shape `[B]`. Layers that the published design does not run are counted all
            the same, and marked (`supported`). `dense_cycles` are those of the same design on masks of ones.

        Raises:
            ValueError: There is no layer, something is not a layer or holds traced arrays, layers differ in B, no rule
                covers a layer, or slots do not fit 64 bits.
        """
        named = check_layers(layers, traced=False)
        enable_cache()
        return Report.of(overlapped(lambda layer: self._layer_report(*layer), named), self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns the name and the parameters of the design as plain values."""
        values = {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }
        return {"design": type(self).__name__, **values, "array_multipliers": self.array_multipliers}

    def _layer_report(self, layer: Layer, name: str) -> LayerReport:
        try:
            count = self.counter(layer)
            dense = self._scaled(self.counter(all_ones(layer))(0))
        except ValueError as error:
            raise ValueError(f"{type(self).__name__} cannot run layer {name}: {error}") from None
        counts = [self._scaled(count(image)) for image in range(layer.batch)]
        return LayerReport.of(
            layer,
            name,
            cycles=[each.cycles for each in counts],
            stacks=[_stack(*each) for each in zip(counts, effectual_macs(layer).tolist(), strict=True)],
            dense_cycles=dense.cycles,
            multipliers=self.reported_multipliers,
            nonzero_weights=int(np.count_nonzero(nonzero(layer.weights))),
            supported=self.supports(layer),
        )

    def _scaled(self, count: Count) -> Count:
        if self.equal_multipliers is None:
            return count
        thread_slots = count.cycles * self.array_multipliers
        cycles = -(-thread_slots // self.equal_multipliers)
        return dataclasses.replace(
            count, cycles=cycles, stack={**count.stack, "rounding": cycles * self.equal_multipliers - thread_slots}
        )

    def _check_integer(self, name: str, minimum: int = 1) -> None:
        object.__setattr__(self, name, integer(name, getattr(self, name), minimum))

    def _check_bool(self, name: str) -> None:
        object.__setattr__(self, name, boolean(name, getattr(self, name)))


def _stack(count: Count, effectual: int) -> dict[str, int]:
    """Returns the stack of an image, with its effectual MACs as a component that starts it."""
    return {"effectual": effectual, **count.stack, count.effectual_in: count.stack[count.effectual_in] - effectual}


def nearest_array(published: tuple[int, int], per_cell: int, multipliers: int) -> tuple[int, int]:
    """Returns the sides of the array whose multipliers are nearest a wanted number.

    Args:
        published: Sides of the published array. Those returned have its proportion to within a factor of two; of
            arrays equally near, the one nearest in proportion is taken, then the one of fewer rows.
        per_cell: Multipliers of a cell of the array.
        multipliers: The wanted number.

    Raises:
        ValueError: `multipliers` is not a positive integer.
    """
    wanted = integer("multipliers", multipliers, minimum=1)
    proportion = published[0] / published[1]
    longest = math.isqrt(_STRETCH * max(published) * (wanted // per_cell + 1) // min(published)) + 1

    def distance(sides: tuple[int, int]) -> tuple[float, float]:
        return abs(sides[0] * sides[1] * per_cell - wanted), abs(math.log(sides[0] / sides[1] / proportion))

    candidates = []
    for rows in range(1, longest + 1):
        ideal = wanted / per_cell / rows
        for cols in {max(1, math.floor(ideal)), max(1, math.ceil(ideal))}:
            if (rows, cols) == (1, 1) or 1 / _STRETCH <= rows / cols / proportion <= _STRETCH:
                candidates.append((rows, cols))
    return min(candidates, key=lambda sides: (*distance(sides), sides))


def is_depthwise(layer: Layer) -> bool:
    """Returns whether each of several groups of a layer has one channel."""
    return layer.weights.shape[-2] == 1 and layer.feature_group_count > 1


def all_ones(layer: Layer) -> Layer:
    """Returns one image of a layer without zeros, but for those that padding and dilation insert."""
    return dataclasses.replace(
        layer,
        weights=np.ones(layer.weights.shape, bool),
        activations=np.ones((1, *layer.activations.shape[1:]), bool),
    )


def tap_windows(layer: Layer, image: int) -> Iterator[tuple[tuple[int, ...], Bool[np.ndarray, "positions channels"]]]:
    """Yields, for each kernel element, its index and what it finds in an image at every output position.

    A dense layer has one kernel element, of index `()`.
    """
    mask = nonzero(layer.activations[image])
    if not layer.is_conv:
        yield (), mask.reshape(-1, mask.shape[-1])
        return
    padded = np.moveaxis(pad_spatial(layer, np.moveaxis(mask, -1, 0)), 0, -1)
    kernel = layer.weights.shape[:-2]
    for tap in range(math.prod(kernel)):
        index = kernel_index(kernel, tap)
        yield index, padded[tap_slices(layer, index)].reshape(-1, mask.shape[-1])


def grouped_weights(layer: Layer) -> Bool[np.ndarray, "*kernel group_channels groups group_filters"]:
    """Returns the weight mask with its filters by group; a dense layer is one group."""
    weights = nonzero(layer.weights)
    groups = layer.feature_group_count
    return weights.reshape(*weights.shape[:-1], groups, weights.shape[-1] // groups)


def effectual_macs(layer: Layer) -> Int64[np.ndarray, " batch"]:
    """Returns the pairs of weight and activation, both non-zero, per image (SPEC 6)."""
    weights = np.count_nonzero(grouped_weights(layer), axis=-1)  # [*kernel, Cin/groups, groups]
    macs = np.zeros(layer.batch, np.int64)
    for image in range(layer.batch):
        for index, window in tap_windows(layer, image):
            met = np.count_nonzero(window, axis=0)  # channels go group by group
            macs[image] += int((met * weights[index].T.reshape(-1)).sum())
    return macs
