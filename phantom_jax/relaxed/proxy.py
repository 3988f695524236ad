"""The relaxed model: expected cycles over independent random weight bits, differentiable (SPEC 8 and 10)."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from phantom_jax.arch import Phantom2D
from phantom_jax.compilation import enable_cache
from phantom_jax.layer import Layer
from phantom_jax.lowering import Streams, kernel_matrix, streams
from phantom_jax.mesh import choose_row_axis, cut_segments
from phantom_jax.relaxed import engine, patterns, samples, tables
from phantom_jax.relaxed.balance import balanced_filters, balanced_jobs
from phantom_jax.relaxed.chain import has_chain
from phantom_jax.relaxed.chunks import Blocks, chunk_cycles, chunk_moments
from phantom_jax.relaxed.moments import Loads, Moments
from phantom_jax.relaxed.rounds import expected_rounds_of


_FEW_BLOCKS = 8  # whose cycles' distributions are added up; the sum of more is nearly Gaussian


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fixed by the shapes of a layer and the accelerator."""

    name: str
    weights_shape: tuple[int, ...]
    cut: Streams
    row_axis: str
    segments: tuple[tuple[int, int], ...]
    method: str  # patterns, chain or samples
    arch: Phantom2D

    @property
    def slots(self) -> int:
        """Slots of a chunk that any chunk occupies."""
        return min(self.arch.slots, int(np.prod(self.weights_shape[:-1])))

    @property
    def per_round(self) -> int:
        """Filters of a round."""
        return self.arch.cores if self.row_axis == "filters" else self.arch.cols

    @property
    def has_distribution(self) -> bool:
        """Whether cycles have a distribution that is exact and cheap: of few blocks, on filters in a fixed order."""
        blocks = max(-(-(stop - start) // self.arch.lookahead) for start, stop in self.segments)
        in_order = not self.arch.inter_balance or self.cut.filters <= self.per_round
        return self.method == "chain" and self.cut.positions == 1 and blocks <= _FEW_BLOCKS and in_order

    @property
    def cells(self) -> np.ndarray:
        """The row of each job of a stream along chunks: as their loads are equal, jobs go round the rows."""
        return np.arange(self.cut.jobs) % self.arch.rows * (self.row_axis == "jobs")


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("table", "spread", "windows"), meta_fields=("plan",)
)
@dataclasses.dataclass(frozen=True)
class LayerCalibration:
    """What the activations of a layer say about its cycles."""

    plan: Plan
    table: Any = None  # [B, groups * chunks, segments, patterns], cycles
    spread: Any = None  # likewise, their variance, for probable activations
    windows: Any = None  # [B, groups, N, G, P, T]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("layers",), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns: a pytree, whose structure depends on shapes and the accelerator alone."""

    layers: tuple[LayerCalibration, ...]


def expected_cycles(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Float[Array, "layers batch"]:
    """Returns the cycles that layers are expected to take, differentiable in floating weights and activations.

    A floating array holds probabilities of independent bits; a boolean or integer one is a mask, as in `simulate`. On
    masks the result equals the exact cycles.

    Args:
        layers: One layer or several; all with the same number of images B.
        arch: The accelerator.

    Returns:
        Expected cycles per layer and image. Inside of `jit`, a layer whose probabilities are not all in [0, 1] has NaN.

    Raises:
        ValueError: As in `simulate`; or a floating array holds values that are no probabilities.
    """
    named = _checked(layers, arch)
    return jnp.stack([_layer_cycles(_calibrate(layer, name, arch), layer.weights) for layer, name in named])


def calibrate(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Calibration:
    """Returns what the activations of layers say about their cycles, for any weights.

    Args:
        layers: One layer or several; of their weights only the shapes matter.
        arch: The accelerator.

    Raises:
        ValueError: As in `expected_cycles`.
    """
    return Calibration(tuple(_calibrate(layer, name, arch) for layer, name in _checked(layers, arch)))


def expected_cycles_from(calibration: Calibration, weights: Sequence[Any] | Any) -> Float[Array, " layers"]:
    """Returns the expected cycles per image of each layer, averaged over the images of the calibration.

    Args:
        calibration: What `calibrate` returned.
        weights: Probabilities (floating) or a mask of each layer.

    Raises:
        ValueError: An array is missing, of another shape than at calibration, or no probabilities.
    """
    if not isinstance(calibration, Calibration):
        raise ValueError(f"calibration must be what calibrate returned, got {calibration!r}.")
    if hasattr(weights, "shape"):
        weights = [weights]
    if len(weights) != len(calibration.layers):
        raise ValueError(f"weights must hold one array for each of {len(calibration.layers)} layers, got {len(weights)}.")
    for index, (layer, array) in enumerate(zip(calibration.layers, weights, strict=True)):
        if np.shape(array) != layer.plan.weights_shape:
            raise ValueError(
                f"weights[{index}] must have the shape {layer.plan.weights_shape} of {layer.plan.name}, got {np.shape(array)}."
            )
        _check_probabilities(f"weights[{index}]", array)
    return jnp.stack([_layer_cycles(*pair).mean() for pair in zip(calibration.layers, weights, strict=True)])


def _checked(layers: Layer | Iterable[Layer], arch: Phantom2D) -> list[tuple[Layer, str]]:
    layers = [layers] if isinstance(layers, Layer) else list(layers)
    named = [(layer, layer.name or f"layer{i}") for i, layer in enumerate(layers)]
    enable_cache()
    return named


def _check_probabilities(argument: str, values: Any) -> None:
    if isinstance(values, Tracer) or not jnp.issubdtype(values.dtype, jnp.floating):
        return
    values = np.asarray(values)
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        raise ValueError(f"{argument} must hold probabilities in [0, 1], got {values[bad].flat[0]}.")


def _plan(layer: Layer, name: str, arch: Phantom2D) -> Plan:
    cut = streams(layer, arch)
    row_axis, _ = choose_row_axis(cut, arch)
    segments = tuple(cut_segments(cut.length, arch.rows if row_axis == "segments" else 1))
    if cut.axis == "positions":
        method = "patterns" if min(arch.slots, layer.reduction) <= patterns.LARGEST else "samples"
    else:
        longest = Blocks.of(segments, arch.lookahead).masks.shape[1]
        method = "chain" if has_chain(arch.selector, arch.threads, longest) else "samples"
    return Plan(name, tuple(layer.weights.shape), cut, row_axis, segments, method, arch)


def _calibrate(layer: Layer, name: str, arch: Phantom2D) -> LayerCalibration:
    plan = _plan(layer, name, arch)
    activations = layer.activations
    if plan.method != "patterns":
        return LayerCalibration(plan, windows=engine.windows(layer, arch))
    probable = jnp.issubdtype(activations.dtype, jnp.floating)
    if not probable and not isinstance(activations, Tracer):
        return LayerCalibration(plan, table=jnp.asarray(tables.count_patterns(layer, plan.cut, plan.segments, arch), jnp.float32))
    windows = engine.windows(layer, arch)
    flat = jnp.moveaxis(windows, 3, 2).reshape(-1, plan.cut.positions, arch.pes, arch.threads)
    table, spread = tables.traced_tables(flat, plan.segments, plan.slots, arch)
    shape = (len(windows), -1, *table.shape[1:])
    return LayerCalibration(plan, table.reshape(shape), None if spread is None else spread.reshape(shape))


@jax.jit
def _layer_cycles(calibration: LayerCalibration, weights: Array) -> Float[Array, " batch"]:
    plan = calibration.plan
    cut, arch = plan.cut, plan.arch
    weights = jnp.asarray(weights)
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = (weights != 0).astype(jnp.float32)
    weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    valid = ((weights >= 0) & (weights <= 1)).all()
    matrix = kernel_matrix(weights, cut.groups)
    matrix = jnp.pad(matrix, ((0, 0), (0, cut.chunks * arch.slots - matrix.shape[1]), (0, 0)))
    slots = matrix.reshape(cut.groups, cut.chunks, arch.slots, -1)  # [groups, G, S, K/groups]

    def by_filter(array: Array) -> Array:  # [groups, G, K/groups, ...] -> [K, G, ...]
        return jnp.moveaxis(array, 2, 1).reshape(cut.filters, cut.chunks, *array.shape[3:])

    spread = slots * (1 - slots)
    loads = Loads(*(by_filter(bits.sum(2)) for bits in (slots, spread, spread * (1 - 2 * slots))))
    if plan.has_distribution:
        within = chunk_cycles(calibration.windows, slots, plan.segments, arch)
        cycles = expected_rounds_of(within, plan.per_round)
    elif cut.axis == "chunks":
        moments = chunk_moments(calibration.windows, slots, plan.segments, plan.cells, arch)
        cycles = balanced_filters(moments, loads.sum_jobs(), plan.per_round, arch.inter_balance)
    else:
        moments = _pattern_moments(calibration, slots, by_filter)
        if plan.row_axis == "jobs":
            cycles = balanced_jobs(moments, loads, arch)
        else:
            cycles = balanced_filters(
                moments.sum_jobs(), loads.sum_jobs(), plan.per_round, arch.inter_balance
            )
    return jnp.where(valid, cycles, jnp.nan)


def _pattern_moments(calibration: LayerCalibration, slots: Array, by_filter) -> Moments:
    plan = calibration.plan
    groups, chunks = slots.shape[:2]
    batch, _, cells, _ = calibration.table.shape
    pairs = [(a, b) for a in range(cells) for b in range(a, cells)]
    first, second = np.array(pairs).T
    ones = patterns.pattern_bits(plan.slots).sum(0)

    def columns(arrays) -> Array:
        table, spread = arrays  # [B, cells, patterns]
        products = patterns.product(table[:, first], table[:, second])
        if spread is not None:
            products += spread[:, first] * jnp.asarray(first == second, table.dtype)[:, None]
        total = table.sum(1, keepdims=True) * scale
        cube = total**3 if spread is None else total**3 + 3 * total * spread.sum(1, keepdims=True) * scale**2
        every = jnp.concatenate([table, products, table * jnp.asarray(ones, table.dtype), total**2, cube], 1)
        return every.reshape(-1, every.shape[-1])

    width = batch * (2 * cells + len(pairs) + 2)
    # Cubes of cycles would leave the range of 32 bits.
    scale = 1 / jnp.maximum(calibration.table.sum(2).max(), 1).astype(slots.dtype)
    occupied = slots.reshape(-1, plan.arch.slots, slots.shape[-1])[:, : plan.slots]
    arrays = (jnp.moveaxis(calibration.table, 1, 0), None if calibration.spread is None else jnp.moveaxis(calibration.spread, 1, 0))
    extended = patterns.extend_all(columns, arrays, occupied, width)
    extended = by_filter(extended.reshape(groups, chunks, -1, width))  # [K, G, width]
    extended = jnp.moveaxis(extended.reshape(*extended.shape[:2], batch, -1), 2, 0)
    ends = np.cumsum([cells, len(pairs), cells])
    mean, products, with_ones, powers = jnp.split(extended, ends, -1)
    total = mean.sum(-1) * scale
    third = (powers[..., 1] - 3 * total * powers[..., 0] + 2 * total**3) / scale**3
    load = by_filter(slots.sum(2))
    covariance = products - patterns.product(mean[..., first], mean[..., second])
    square = np.zeros((cells, cells), int)
    square[first, second] = square[second, first] = np.arange(len(pairs))
    blocks = Blocks.of(plan.segments, plan.arch.lookahead).segment
    return Moments(
        mean,
        covariance[..., square],
        with_ones - patterns.product(mean, load[..., None]),
        third,
        by_filter((1 - slots).prod(2)),
        jnp.asarray(np.bincount(blocks), slots.dtype),
    )
