"""What activations say about a layer's cycles, whatever its weights: tables, or windows themselves (SPEC 8 and 10)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from phantom_jax.arch import Phantom2D
from phantom_jax.layer import Layer
from phantom_jax.proxy.balance import draw_uniform
from phantom_jax.proxy.jobs import tables, traced
from phantom_jax.proxy.plan import Plan


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("uniform", "table", "spread", "windows"),
    meta_fields=("plan",),
)
@dataclasses.dataclass(frozen=True)
class LayerCalibration:
    """A pytree, whose structure depends on the layer's shapes, types and the accelerator alone."""

    plan: Plan
    uniform: Any = None  # [draws, K] or [draws, K, J], of `Loads.draw`, where level-2 balance follows drawn loads
    table: Any = None  # [B, groups, G, segments, patterns], cycles of streams along positions
    spread: Any = None  # likewise, their variance, for probable activations
    windows: Any = None  # [B, groups, N, G, P, T], bits or probabilities, where there is no table


def calibrate_layer(layer: Layer, arch: Phantom2D) -> LayerCalibration:
    """Calibrates a layer; hard activations that are not traced go through the engine of `simulate`."""
    probable = jnp.issubdtype(layer.activations.dtype, jnp.floating)
    plan = Plan.of(layer, probable, arch)
    uniform = draw_uniform(plan) if plan.is_balanced and plan.way != "single" else None
    groups, chunks = plan.streams.groups, plan.streams.chunks
    has_table = plan.way in ("single", "patterns")
    if has_table and not probable and not isinstance(layer.activations, Tracer):
        table = jnp.asarray(tables.count_patterns(layer, plan.streams, plan.segments, arch), jnp.float32)
        return LayerCalibration(plan, uniform, table.reshape(len(table), groups, chunks, *table.shape[2:]))
    windows = traced.windows(layer, arch)
    if probable:
        windows = windows.astype(jnp.promote_types(windows.dtype, jnp.float32))
        valid = ((layer.activations >= 0) & (layer.activations <= 1)).all()
        windows *= jnp.where(valid, 1, jnp.nan)
    if not has_table:
        return LayerCalibration(plan, uniform, windows=windows)
    flat = jnp.moveaxis(windows, 3, 2).reshape(-1, plan.streams.positions, arch.pes, arch.threads)
    both = tables.traced_tables(flat, plan.segments, plan.occupied_slots, arch)
    shape = (len(windows), groups, chunks, len(plan.segments), -1)
    return LayerCalibration(plan, uniform, *jax.tree.map(lambda table: table.reshape(shape), both))
