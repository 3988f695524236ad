"""SCNN: PEs that multiply all non-zero activations of a tile with all non-zero weights of a channel (SPEC 9)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from phantom_jax.baselines import banks
from phantom_jax.baselines.design import Count, Design, grouped_weights, is_depthwise, nearest_array
from phantom_jax.checks import integer, one_of
from phantom_jax.layer import Layer, nonzero
from phantom_jax.windows import kernel_index, pad_spatial

BARRIERS = ("group", "channel")
_OUTSIDE = 1 << 28  # a coordinate beyond every plane


@dataclasses.dataclass(frozen=True)
class _Work:
    """What the PEs do for one image, in steps, cycles and products; a *unit* is what a barrier ends."""

    cycles: Int64[np.ndarray, "units pes"]
    steps: int
    products: int


@dataclasses.dataclass(frozen=True)
class SCNN(Design):
    """SCNN (Parashar et al., ISCA 2017, arXiv:1708.04485).

    The paper states: 8x8 PEs, each multiplying 4 weights with 4 activations per cycle, 32 accumulator banks of 32
    entries per PE; the input plane is tiled over the PEs and stays, weights are broadcast in groups of filters; PEs
    wait for each other at the end of a group. It states 3.52 times the speed of its dense counterpart of 1024
    multipliers on VGG16's convolutions, 0.79 of it at densities of 1 and about 24 times at 0.1.

    SPEC 9 fixes the model. Per filter group, input channel and PE, ceil(A / activations_per_step) *
    ceil(Q / weights_per_step) steps, A the non-zero activations of the PE's tile of the zero-padded plane, Q the
    non-zero weights of the group in that channel. Products outside the output take slots. Halos are exchanged
    meanwhile. Beyond SPEC 9:

    - Strides: an activation's phase is its coordinate in the padded plane modulo the stride, a weight's its place in
      the kernel, dilation included, modulo the stride. So exactly those multiply that can meet in some output. Strides
      may differ by axis. The phases of a channel run without a barrier between them.
    - Groups of convolutions run one after the other; filter groups are cut within them. A layer is depthwise, with one
      filter per group, if its groups have one channel and there are several.
    - Kernel dilation changes where products fall, input dilation adds zeros to the plane. A plane of one axis has a
      second one of length 1. Planes of three axes have no rule.
    - Fully connected: PE p has filters floor(p * K / PEs) up to floor((p + 1) * K / PEs), however many
      accumulators that takes. Positions run one after the other; at the end of each, or of each activation with
      `barrier="channel"`, PEs wait for each other.

    The published design does not support strides other than 1 and fully connected layers (by the abstract of
    arXiv:2111.05002), and dilated ones are not mentioned.

    The stack: `effectual`; `outside`, products that fall outside the output; `fragmentation`, slots of a step without a
    product; `conflict`, cycles that a step waits for a bank; `inter_pe`, PEs that wait for the slowest.

    Attributes:
        barrier: Where PEs wait for each other: at the end of a filter `"group"`, as published, or of each `"channel"`.
        bank_conflicts: Whether a step lasts as many cycles as the fullest bank gets products; at most 64 per step.
        accumulators: Partial sums of a PE, which bound the filters of a group.
        pe_grid: PEs along the first and the second spatial axis.
        weights_per_step: Weights that a PE takes per step, F.
        activations_per_step: Activations that a PE takes per step, I.
        banks: Accumulator banks of a PE.
        equal_multipliers: See `Design`.

    Raises:
        ValueError: A parameter is not valid.
    """

    barrier: str = "group"
    bank_conflicts: bool = False
    accumulators: int = 1024
    pe_grid: tuple[int, int] = (8, 8)
    weights_per_step: int = 4
    activations_per_step: int = 4
    banks: int = 32

    def __post_init__(self) -> None:
        """Validates every parameter."""
        super().__post_init__()
        one_of("barrier", self.barrier, BARRIERS)
        self._check_bool("bank_conflicts")
        for name in ("accumulators", "weights_per_step", "activations_per_step", "banks"):
            self._check_integer(name)
        grid: Any = self.pe_grid
        if not isinstance(grid, (tuple, list)) or len(grid) != 2:
            raise ValueError(f"pe_grid must be a pair of positive integers, got {grid!r}.")
        sides = tuple(integer(f"pe_grid[{axis}]", side, minimum=1) for axis, side in enumerate(grid))
        object.__setattr__(self, "pe_grid", sides)
        if self.bank_conflicts and self._products > banks.MOST_PRODUCTS:
            raise ValueError(
                f"bank_conflicts must be false with more than {banks.MOST_PRODUCTS} products per step, got "
                f"weights_per_step {self.weights_per_step} and activations_per_step {self.activations_per_step}."
            )

    @classmethod
    def scaled(cls, multipliers: int = 252) -> "SCNN":
        """Returns the design with about `multipliers` multipliers; results are scaled to exactly that number.

        For 252: 4 x 4 PEs, which have 256.
        """
        grid = nearest_array(cls.pe_grid, cls.weights_per_step * cls.activations_per_step, multipliers)
        return cls(pe_grid=grid, equal_multipliers=multipliers)

    @property
    def pes(self) -> int:
        """PEs of the grid."""
        return math.prod(self.pe_grid)

    @property
    def array_multipliers(self) -> int:
        """Multipliers of the array."""
        return self.pes * self._products

    @property
    def _products(self) -> int:
        return self.weights_per_step * self.activations_per_step

    def supports(self, layer: Layer) -> bool:
        """Whether the published design runs such a layer: convolutions of stride 1 without dilation."""
        return layer.is_conv and {1} == {*layer.strides, *layer.input_dilation, *layer.kernel_dilation}

    def counter(self, layer: Layer) -> Callable[[int], Count]:
        """Returns what counts an image of a layer.

        Raises:
            ValueError: The layer has three spatial axes.
        """
        if len(layer.strides) > 2:
            raise ValueError(f"it must have one or two spatial axes, got {len(layer.strides)}.")
        work = (_Convolution if layer.is_conv else _Product)(self, layer).run

        def count(image: int) -> Count:
            done = work(image)
            cycles, worked = int(done.cycles.max(1).sum()), int(done.cycles.sum())
            return Count(
                cycles,
                {
                    "outside": done.products,
                    "fragmentation": done.steps * self._products - done.products,
                    "conflict": (worked - done.steps) * self._products,
                    "inter_pe": (cycles * self.pes - worked) * self._products,
                },
                effectual_in="outside",
            )

        return count


class _Convolution:
    """A convolution: queues are phases of channels, channel slowest."""

    def __init__(self, design: SCNN, layer: Layer) -> None:
        self._design, self._layer = design, layer
        self._strides = _two(layer.strides, 1)
        self._phases = math.prod(self._strides)
        self._plane = _two(layer.output_shape, 1)
        weights = grouped_weights(layer)
        kernel = weights.shape[:-3]
        channels, groups, filters = weights.shape[-3:]
        tile = math.prod(-(-size // side) for size, side in zip(self._plane, design.pe_grid, strict=True))
        at_once = 1 if is_depthwise(layer) else max(1, design.accumulators // tile)
        self._starts = np.arange(0, filters, at_once)
        self._taps = []  # place in the kernel, dilation included, and weights [Cin, filters of a group]
        for tap in range(math.prod(kernel)):
            index = kernel_index(kernel, tap)
            place = tuple(at * step for at, step in zip(index, layer.kernel_dilation, strict=True))
            self._taps.append((_two(place, 0), weights[index].swapaxes(0, 1).reshape(-1, filters)))
        self._taps.sort(key=lambda tap: tap[0])  # as weights are queued
        # Non-zero weights per channel, phase and filter group.
        self._weights = np.zeros((groups * channels, self._phases, len(self._starts)), np.int64)
        for place, mask in self._taps:
            self._weights[:, self._phase(*place)] += np.add.reduceat(mask, self._starts, axis=1, dtype=np.int64)

    def run(self, image: int) -> _Work:
        """Runs one image."""
        design, layer = self._design, self._layer
        plane = self._padded(image)
        activations = self._count(plane)
        hands = -(-activations // design.activations_per_step)[..., None]
        steps = hands * -(-self._weights // design.weights_per_step)[:, :, None]
        cycles = self._bank_cycles(plane, steps.shape) if design.bank_conflicts else steps
        per_channel = cycles.sum(1)  # [Cin, PEs, filter groups]
        groups = layer.feature_group_count
        if design.barrier == "group":
            per_channel = per_channel.reshape(groups, -1, *per_channel.shape[1:]).sum(1)
        return _Work(
            cycles=per_channel.swapaxes(1, 2).reshape(-1, design.pes),
            steps=int(steps.sum()),
            products=int((activations.sum(-1) * self._weights.sum(-1)).sum()),
        )

    def _phase(self, first: Any, second: Any) -> Any:
        return first % self._strides[0] * self._strides[1] + second % self._strides[1]

    def _padded(self, image: int) -> Bool[np.ndarray, "channels first second"]:
        """Returns the zero-padded plane, each axis a multiple of the PEs along it."""
        mask = nonzero(self._layer.activations[image])
        plane = pad_spatial(self._layer, np.moveaxis(mask, -1, 0))
        plane = plane.reshape(len(plane), *_two(plane.shape[1:], 1))
        more = [(0, -size % side) for size, side in zip(plane.shape[1:], self._design.pe_grid, strict=True)]
        return np.pad(plane, [(0, 0), *more])

    def _count(self, plane: Bool[np.ndarray, "channels first second"]) -> Int64[np.ndarray, "channels phases pes"]:
        """Returns the non-zero activations of each PE's tile."""
        counts = np.empty((len(plane), self._phases, self._design.pes), np.int64)
        for first in range(self._strides[0]):
            for second in range(self._strides[1]):
                part = plane[:, first :: self._strides[0], second :: self._strides[1]]
                for axis, offset in ((1, first), (2, second)):
                    tile = plane.shape[axis] // self._design.pe_grid[axis - 1]
                    edges = np.arange(0, plane.shape[axis] + 1, tile)
                    edges = -(-(edges - offset) // self._strides[axis - 1])  # first of the phase at or after the edge
                    sums = np.cumsum(part, axis=axis, dtype=np.int64)
                    sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis)
                    part = np.diff(sums.take(np.clip(edges, 0, sums.shape[axis] - 1), axis), axis=axis)
                counts[:, self._phase(first, second)] = part.reshape(len(plane), -1)
        return counts

    def _bank_cycles(
        self, plane: np.ndarray, shape: tuple[int, ...]
    ) -> Int64[np.ndarray, "channels phases pes groups"]:
        """Returns the cycles of all steps with their conflicts."""
        design, strides = self._design, np.array(self._strides)
        channel, first, second = np.nonzero(plane)
        tiles = [size // side for size, side in zip(plane.shape[1:], design.pe_grid, strict=True)]
        activations = banks.deal(
            channel * self._phases + self._phase(first, second),
            first // tiles[0] * design.pe_grid[1] + second // tiles[1],
            np.stack([first, second], 1) // strides,
            design.activations_per_step,
            -_OUTSIDE,
        )
        queues, owners, at = [], [], []
        for place, mask in self._taps:
            channel, number = np.nonzero(mask)
            filter_ = channel // (len(mask) // self._layer.feature_group_count) * mask.shape[1] + number
            queues.append(channel * self._phases + self._phase(*place))
            owners.append(np.searchsorted(self._starts, number, "right") - 1)
            coordinates = [np.full(len(channel), each // stride) for each, stride in zip(place, strides, strict=True)]
            at.append(np.stack([*coordinates, filter_], 1))
        queue, owner, operands = map(np.concatenate, (queues, owners, at))
        weights = banks.deal(queue, owner, operands, design.weights_per_step, _OUTSIDE)
        counts = (shape[0] * shape[1], shape[2], shape[3])
        return banks.step_cycles(activations, weights, counts, self._plane, design.banks).reshape(shape)


class _Product:
    """A fully connected layer: filters are spread over the PEs, activations come one at a time."""

    def __init__(self, design: SCNN, layer: Layer) -> None:
        self._design, self._layer = design, layer
        mask = nonzero(layer.weights)
        bounds = [pe * layer.filters // design.pes for pe in range(design.pes + 1)]
        sums = np.concatenate([np.zeros((len(mask), 1), np.int64), np.cumsum(mask, axis=1, dtype=np.int64)], 1)
        self._weights = np.diff(sums[:, bounds], axis=1)  # non-zero ones of each PE, [Cin, PEs]
        self._steps = -(-self._weights // design.weights_per_step)
        self._cycles = self._bank_cycles(mask, bounds) if design.bank_conflicts else self._steps

    def run(self, image: int) -> _Work:
        """Runs one image."""
        positions = nonzero(self._layer.activations[image]).reshape(-1, self._layer.weights.shape[0])
        met = np.count_nonzero(positions, axis=0)
        by_position = self._design.barrier == "group"
        units = [self._cycles[mask].sum(0)[None] if by_position else self._cycles[mask] for mask in positions]
        return _Work(
            cycles=np.concatenate(units),
            steps=int(met @ self._steps.sum(1)),
            products=int(met @ self._weights.sum(1)),
        )

    def _bank_cycles(
        self, mask: Bool[np.ndarray, "channels filters"], bounds: list[int]
    ) -> Int64[np.ndarray, "channels pes"]:
        """Returns the cycles of one activation with their conflicts; all products have the output coordinate 0, 0."""
        design = self._design
        channel, number = np.nonzero(mask)
        owner = np.searchsorted(bounds, number, "right") - 1
        at = np.stack([np.zeros_like(number), np.zeros_like(number), number], 1)
        weights = banks.deal(channel, owner, at, design.weights_per_step, _OUTSIDE)
        channels = np.arange(len(mask))
        single = np.zeros((len(mask), 2), np.int64)
        activations = banks.deal(channels, np.zeros_like(channels), single, design.activations_per_step, -_OUTSIDE)
        counts = (len(mask), 1, design.pes)
        return banks.step_cycles(activations, weights, counts, (1, 1), design.banks)[:, 0]


def _two(values: tuple[int, ...], default: int) -> tuple[int, int]:
    """Returns a value for each of two axes."""
    first, second = (*values, default)[:2]
    return int(first), int(second)
