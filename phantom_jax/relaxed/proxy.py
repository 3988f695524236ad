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
from phantom_jax.checks import integer
from phantom_jax.compilation import enable_cache
from phantom_jax.layer import Layer
from phantom_jax.lowering import Streams, kernel_matrix, streams
from phantom_jax.mesh import choose_row_axis, cut_segments
from phantom_jax.relaxed import engine, patterns, tables
from phantom_jax.relaxed.balance import draw, mean_over_draws, order_filters, run_filters, run_jobs
from phantom_jax.relaxed.chain import has_chain
from phantom_jax.relaxed.chunks import Blocks, chunk_cycles, chunk_moments
from phantom_jax.relaxed.moments import Loads, Moments
from phantom_jax.relaxed.rounds import expected_rounds_of, multiply_along
from phantom_jax.relaxed.samples import sampled_moments
from phantom_jax.simulate import check_layers

_FEW_BLOCKS = 8  # whose cycles' distributions are added up; the sum of more is nearly Gaussian


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fixed by the shapes of a layer and the accelerator."""

    weights_shape: tuple[int, ...]
    cut: Streams
    row_axis: str
    segments: tuple[tuple[int, int], ...]
    method: str  # "patterns", "chain" or "samples"
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
    def rounds(self) -> int:
        """Rounds of the layer."""
        return -(-self.cut.filters // self.per_round)

    @property
    def places_jobs(self) -> bool:
        """Whether rows share out jobs of different kernel bits."""
        return self.row_axis == "jobs" and self.cut.axis == "positions"

    @property
    def is_balanced(self) -> bool:
        """Whether level-2 balance changes anything: several filters of several rounds, or jobs of several rows."""
        orders = self.rounds > 1 and self.per_round > 1
        return self.arch.inter_balance and (orders or (self.places_jobs and self.arch.rows > 1))

    @property
    def has_distribution(self) -> bool:
        """Whether cycles have a distribution that is exact and cheap: of few blocks, on filters in a fixed order."""
        blocks = max(-(-(stop - start) // self.arch.lookahead) for start, stop in self.segments)
        return self.method == "chain" and self.cut.positions == 1 and blocks <= _FEW_BLOCKS and not self.is_balanced

    @property
    def cells(self) -> np.ndarray:
        """The row of each job of a stream along chunks: as their loads are equal, jobs go round the rows."""
        return np.arange(self.cut.jobs) % self.arch.rows * (self.row_axis == "jobs")


@functools.partial(jax.tree_util.register_dataclass, data_fields=("table", "spread", "windows"), meta_fields=("plan",))
@dataclasses.dataclass(frozen=True)
class LayerCalibration:
    """What the activations of a layer say about its cycles: a table of streams along positions, else windows."""

    plan: Plan
    table: Any = None  # [B, groups * chunks, segments, patterns], cycles
    spread: Any = None  # likewise, their variance, for probable activations
    windows: Any = None  # [B, groups, N, G, P, T]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("layers",), meta_fields=("names",))
@dataclasses.dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns: a pytree, whose structure depends on shapes, names and the accelerator alone."""

    layers: tuple[LayerCalibration, ...]
    names: tuple[str, ...]


def expected_cycles(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Float[Array, "layers batch"]:
    """Returns the cycles that layers are expected to take, differentiable in floating weights and activations.

    A floating array holds the probabilities of independent bits; a boolean or integer one is a mask, as in `simulate`.
    Where all probabilities are 0 or 1, the result is the exact number of cycles. See docs/relaxation.md for what is
    exact elsewhere, and what is estimated.

    Args:
        layers: One layer or several; all with the same number of images B.
        arch: The accelerator.

    Returns:
        Expected cycles `[layers, B]`. Inside of `jit`, where values cannot be refused, layers with probabilities
        outside of [0, 1] have NaN.

    Raises:
        ValueError: There is no layer, something is not a layer, layers differ in B, `arch` is not an accelerator, or a
            floating array holds values outside of [0, 1].
    """
    named = _checked(layers, arch)
    return jnp.stack([_layer_cycles(_calibrate(layer, arch), layer.weights) for layer, _ in named])


def calibrate(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Calibration:
    """Returns what the activations of layers say about their cycles, for any weights of the same shapes.

    Costly where `expected_cycles_from` is cheap: a training loop calls this once, and again when activations have
    changed. Hard (boolean or integer) activations are counted exactly.

    Args:
        layers: One layer or several, with activations of a calibration batch; of weights only the shapes matter.
        arch: The accelerator.

    Raises:
        ValueError: As in `expected_cycles`.
    """
    named = _checked(layers, arch)
    return Calibration(tuple(_calibrate(layer, arch) for layer, _ in named), tuple(name for _, name in named))


def expected_cycles_from(
    calibration: Calibration,
    weights: Sequence[Any] | Any,
    *,
    rounds: int | None = None,
    chunks: int | None = None,
    key: Array | None = None,
) -> Float[Array, " layers"]:
    """Returns the expected cycles per image of each layer, averaged over the images of the calibration.

    For large layers, the work can be cut down by sampling: `rounds` of a layer, with the filters that they run, stand
    for all of them, which leaves value and gradient unbiased; and the gradient goes through so many `chunks` alone,
    which leaves it unbiased, and the value as it is.

    Args:
        calibration: What `calibrate` returned.
        weights: Probabilities (floating) or a mask (boolean or integer) of each layer; a single array for one layer.
        rounds: Rounds to sample, of layers that have more of them and one group; all by default.
        chunks: Chunks to sample, of layers with pattern tables that have more of them; all by default.
        key: Random key for sampling, from `jax.random.key`; a new one at each step.

    Returns:
        Expected cycles `[layers]`; NaN as in `expected_cycles`.

    Raises:
        ValueError: `calibration` is none, `weights` lacks an array, has one of another shape than at calibration or
            with values outside of [0, 1], or a sampling option is not a positive integer or lacks a key.
    """
    if not isinstance(calibration, Calibration):
        raise ValueError(f"calibration must be what calibrate returned, got {calibration!r}.")
    if isinstance(weights, np.ndarray | jax.Array) and weights.shape == calibration.layers[0].plan.weights_shape:
        weights = [weights]
    weights = list(weights)
    if len(weights) != len(calibration.layers):
        raise ValueError(
            f"weights must hold an array for each of {len(calibration.layers)} layers, got {len(weights)}."
        )
    for index, (layer, name, array) in enumerate(zip(calibration.layers, calibration.names, weights, strict=True)):
        if not hasattr(array, "shape") or tuple(array.shape) != layer.plan.weights_shape:
            raise ValueError(
                f"weights[{index}] ({name}) must have shape {layer.plan.weights_shape}, as at calibration, got "
                f"{getattr(array, 'shape', array)}."
            )
        _check_probabilities(f"weights[{index}] ({name})", array)
    sampling = {"rounds": rounds, "chunks": chunks}
    for option, value in sampling.items():
        if value is not None:
            integer(option, value, minimum=1)
            if key is None:
                raise ValueError(f"key must be a random key from jax.random.key where {option} are sampled, got None.")
    keys = [None] * len(weights) if key is None else list(jax.random.split(key, len(weights)))
    return jnp.stack(
        [
            _layer_cycles(layer, array, layer_key, **sampling).mean()
            for layer, array, layer_key in zip(calibration.layers, weights, keys, strict=True)
        ]
    )


def _checked(layers: Layer | Iterable[Layer], arch: Phantom2D) -> list[tuple[Layer, str]]:
    named = list(check_layers(layers, arch, traced=True))
    for index, (layer, name) in enumerate(named):
        _check_probabilities(f"weights of layers[{index}] ({name})", layer.weights)
        _check_probabilities(f"activations of layers[{index}] ({name})", layer.activations, "!= 0 makes them a mask")
    enable_cache()
    return named


def _check_probabilities(argument: str, values: Any, hint: str = "") -> None:
    """Refuses what is no probability; traced values are not known yet."""
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise ValueError(f"{argument} must be probabilities or a mask, got dtype {values.dtype}.")
    if isinstance(values, Tracer) or not jnp.issubdtype(values.dtype, jnp.floating):
        return
    values = np.asarray(values)
    bad = values[~((values >= 0) & (values <= 1))]
    if bad.size:
        raise ValueError(
            f"{argument} must be probabilities in [0, 1] where they are floating, got {bad.size} others, such as "
            f"{bad[0]}.{hint and f' ({hint}.)'}"
        )


def _calibrate(layer: Layer, arch: Phantom2D) -> LayerCalibration:
    cut = streams(layer, arch)
    row_axis, _ = choose_row_axis(cut, arch)
    segments = tuple(cut_segments(cut.length, arch.rows if row_axis == "segments" else 1))
    longest = min(arch.lookahead, max(stop - start for start, stop in segments))
    if cut.axis == "positions":
        method = "patterns" if min(arch.slots, layer.reduction) <= patterns.LARGEST else "samples"
    else:
        method = "chain" if has_chain(arch.selector, arch.threads, longest) else "samples"
    plan = Plan(tuple(layer.weights.shape), cut, row_axis, segments, method, arch)

    probable = jnp.issubdtype(layer.activations.dtype, jnp.floating)
    if method == "patterns" and not probable and not isinstance(layer.activations, Tracer):
        table = tables.count_patterns(layer, cut, segments, arch)
        return LayerCalibration(plan, table=jnp.asarray(table, jnp.float32))
    windows = engine.windows(layer, arch)
    if probable:
        windows = windows.astype(jnp.promote_types(windows.dtype, jnp.float32))
        valid = ((layer.activations >= 0) & (layer.activations <= 1)).all()
        windows = jnp.where(valid, windows, jnp.nan)
    if method != "patterns":
        return LayerCalibration(plan, windows=windows)
    flat = jnp.moveaxis(windows, 3, 2).reshape(-1, cut.positions, arch.pes, arch.threads)
    table, spread = tables.traced_tables(flat, segments, plan.slots, arch)
    shape = (len(windows), -1, *table.shape[1:])
    return LayerCalibration(plan, table.reshape(shape), None if spread is None else spread.reshape(shape))


@functools.partial(jax.jit, static_argnames=("rounds", "chunks"))
def _layer_cycles(
    calibration: LayerCalibration,
    weights: Array,
    key: Array | None = None,
    rounds: int | None = None,
    chunks: int | None = None,
) -> Float[Array, " batch"]:
    """Returns the expected cycles of a layer for each image."""
    plan = calibration.plan
    cut, arch = plan.cut, plan.arch
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = (weights != 0).astype(jnp.float32)
    weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    valid = ((weights >= 0) & (weights <= 1)).all()
    matrix = kernel_matrix(weights, cut.groups)
    matrix = jnp.pad(matrix, ((0, 0), (0, cut.chunks * arch.slots - matrix.shape[1]), (0, 0)))
    slots = matrix.reshape(cut.groups, cut.chunks, arch.slots, -1)  # [groups, G, S, K/groups]
    spread = slots * (1 - slots)
    jobs = Loads(*(_by_filter(bits.sum(2)) for bits in (slots, spread, spread * (1 - 2 * slots))))
    loads = jobs if plan.places_jobs else jobs.sum_jobs()
    keys = jax.random.split(jax.random.key(0) if key is None else key, 3)
    chunk_key = keys[2] if chunks is not None and chunks < cut.chunks else None

    def run(moments: Moments, loads: Loads, deviations: Array | None) -> Array:
        if plan.places_jobs:
            return run_jobs(moments, loads, deviations, arch)
        return run_filters(moments, loads, deviations, plan.per_round)

    if rounds is not None and rounds < plan.rounds and cut.groups == 1:
        full = cut.filters // plan.per_round  # rounds; another one, if it is not full, is always taken
        rounds = min(rounds, full)
        deviations = loads.deviations(draw(loads, 1, keys[0])[0]) if plan.is_balanced else None
        order = order_filters(loads, deviations)
        chosen = jax.random.choice(keys[1], full, (rounds,), replace=False)
        taken = order[: full * plan.per_round].reshape(full, -1)[chosen].reshape(-1)
        taken = jnp.concatenate([taken, order[full * plan.per_round :]])
        slots, loads = slots[..., taken], loads.take(taken)
        deviations = None if deviations is None else deviations[taken]
        cycles = run(_moments(calibration, slots, chunks, chunk_key), loads, deviations)
        cycles = full / rounds * cycles[:, :rounds].sum(1) + cycles[:, rounds:].sum(1)
    elif plan.has_distribution:
        within = chunk_cycles(calibration.windows, slots, plan.segments, arch)
        cycles = expected_rounds_of(within, plan.per_round).sum(1)
    else:
        moments = _moments(calibration, slots, chunks, chunk_key)

        def drawn(deviations: Array | None) -> Array:
            if deviations is None:
                return run(moments, loads, None).sum(1)
            order = order_filters(loads, deviations)
            return run(moments.take(order), loads.take(order), deviations[order]).sum(1)

        cycles = mean_over_draws(drawn, loads, plan.rounds) if plan.is_balanced else drawn(None)
    return jnp.where(valid, cycles, jnp.nan)


def _by_filter(array: Array) -> Array:
    """Brings `[groups, G, K/groups, ...]` into the order of filters, `[K, G, ...]`."""
    return jnp.moveaxis(array, 2, 1).reshape(array.shape[0] * array.shape[2], array.shape[1], *array.shape[3:])


def _moments(calibration: LayerCalibration, slots: Array, chunks: int | None, key: Array | None) -> Moments:
    """Returns the moments of jobs if rows share them out, else of filters."""
    plan = calibration.plan
    arguments = calibration.windows, slots, plan.segments, plan.cells, plan.arch
    if plan.method == "chain":
        return chunk_moments(*arguments)
    if plan.method == "samples":
        moments = sampled_moments(*arguments[:2], plan.cut.axis, *arguments[2:])
    else:
        moments = _pattern_moments(calibration, slots, chunks, key)
    return moments if plan.places_jobs or plan.cut.axis == "chunks" else moments.sum_jobs()


def _pattern_moments(calibration: LayerCalibration, slots: Array, chunks: int | None, key: Array | None) -> Moments:
    """Returns the moments of jobs from their tables; with a key, the gradient goes through so many chunks alone."""
    groups, all_chunks = slots.shape[:2]
    tables = jax.tree.map(
        lambda table: jnp.moveaxis(table.reshape(len(table), groups, all_chunks, *table.shape[2:]), 0, 2),
        (calibration.table, calibration.spread),
    )  # [groups, G, B, segments, patterns]
    if key is None or chunks is None:
        return _extend(calibration.plan, tables, slots)
    taken = jax.random.choice(key, all_chunks, (chunks,), replace=False)
    whole = jax.lax.stop_gradient(_extend(calibration.plan, tables, jax.lax.stop_gradient(slots)))
    part = _extend(calibration.plan, jax.tree.map(lambda table: table[:, taken], tables), slots[:, taken])

    def join(whole: Array, part: Array, axis: int) -> Array:
        at = (slice(None),) * axis + (taken,)
        return whole.at[at].add((part - jax.lax.stop_gradient(part)) * (all_chunks / chunks))

    names = ("mean", "covariance", "with_load", "third", "absent")
    joined = {name: join(getattr(whole, name), getattr(part, name), 1 if name == "absent" else 2) for name in names}
    return Moments(**joined, least=whole.least)


def _extend(plan: Plan, tables: Any, slots: Array) -> Moments:
    batch, cells = tables[0].shape[2:4]
    pairs = [(a, b) for a in range(cells) for b in range(a, cells)]
    first, second = np.array(pairs).T
    ones = patterns.pattern_bits(plan.slots).sum(0)
    # Cubes of cycles would leave the range of 32 bits.
    scale = 1 / jnp.maximum(tables[0].sum(3).max(), 1).astype(slots.dtype)

    def columns(arrays: tuple[Array, Array | None]) -> Array:
        table, spread = arrays  # [B, segments, patterns]
        products = patterns.product(table[:, first], table[:, second])
        total = table.sum(1, keepdims=True) * scale
        cube = total**3
        if spread is not None:
            products += spread[:, first] * jnp.asarray(first == second, table.dtype)[:, None]
            cube += 3 * total * spread.sum(1, keepdims=True) * scale**2
        every = jnp.concatenate([table, products, table * jnp.asarray(ones, table.dtype), cube], 1)
        return every.reshape(-1, every.shape[-1])

    ends = np.cumsum([cells, len(pairs), cells, 1])
    occupied = slots[:, :, : plan.slots].reshape(-1, plan.slots, slots.shape[-1])
    units = jax.tree.map(lambda table: table.reshape(-1, *table.shape[2:]), tables)
    extended = patterns.extend_all(columns, units, occupied, batch * int(ends[-1]))
    extended = _by_filter(extended.reshape(*slots.shape[:2], slots.shape[3], batch, -1))
    mean, products, with_ones, cube = jnp.split(jnp.moveaxis(extended, 2, 0), ends[:-1], -1)
    total = mean.sum(-1) * scale
    total_square = products @ jnp.asarray(np.where(first == second, 1, 2), slots.dtype) * scale**2
    third = (cube[..., 0] - 3 * total * total_square + 2 * total**3) / scale**3
    square = np.zeros((cells, cells), int)
    square[first, second] = square[second, first] = np.arange(len(pairs))
    covariance = products - patterns.product(mean[..., first], mean[..., second])
    return Moments(
        mean,
        covariance[..., square],
        with_ones - patterns.product(mean, _by_filter(slots.sum(2))[..., None]),
        third,
        absent=_by_filter(multiply_along(1 - slots, 2)),
        least=jnp.asarray(np.bincount(Blocks.of(plan.segments, plan.arch.lookahead).segment), slots.dtype),
    )
