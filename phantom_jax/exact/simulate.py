"""The exact model: layers in, cycles and cycle stacks out (SPEC 3 to 6)."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64

from phantom_jax.arch import Phantom2D, check_arch
from phantom_jax.checks import integer
from phantom_jax.exact.cache import enable_cache
from phantom_jax.exact.lanes import packing
from phantom_jax.exact.lowering import Streams, streams
from phantom_jax.exact.mesh import map_cores, map_layer, run_rounds
from phantom_jax.exact.tiles import overlapped
from phantom_jax.exact.words import WordCounter
from phantom_jax.layer import Layer, check_layers, nonzero
from phantom_jax.report import LayerReport, Report

_INT64_MAX = np.iinfo(np.int64).max


def simulate(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Report:
    """Counts the exact cycles that layers take on Phantom-2D, and where every thread slot goes.

    Images of a batch are simulated one by one; weights and activations are read as masks (`!= 0`). Layers are taken
    from the iterable as they are needed, three at a time at most, so a generator keeps few layers' masks in memory,
    and wrapping it in a progress bar shows progress.

    Args:
        layers: One layer or several; all with the same number of images B.
        arch: The accelerator.

    Returns:
        A report with int64 results of shape `[B]`.

    Raises:
        ValueError: There is no layer, something is not a layer or holds traced arrays, layers differ in B, `arch` is
            not an accelerator, or its thread slots do not fit 64 bits.
    """
    check_arch(arch)
    named = check_layers(layers, traced=False)
    enable_cache()
    reports: list[LayerReport] = []
    for report in overlapped(lambda layer: _simulate_layer(*layer, arch), named):
        reports.append(report)
        slots = max(map(sum, zip(*(report.cycles.tolist() for report in reports), strict=True))) * arch.multipliers
        if slots > _INT64_MAX:
            raise ValueError(
                f"rows and cols: up to {report.name}, {arch.multipliers} multipliers offer more slots than 64 bits "
                "hold."
            )
    return Report(tuple(reports), dataclasses.asdict(arch))


def core_cycles(layer: Layer, arch: Phantom2D, image: int = 0) -> Int64[np.ndarray, "rounds rows cols"]:
    """Returns the cycles that each core of the mesh works in each round of a layer, for one image.

    A round lasts as long as the slowest of its cores, and the layer the sum of its rounds.

    Args:
        layer: The layer.
        arch: The accelerator; the result has `arch.rows` by `arch.cols` cores.
        image: Index of the image in the batch.

    Raises:
        ValueError: There is no such image.
    """
    if integer("image", image, minimum=0) >= layer.batch:
        raise ValueError(f"image must be below the batch of {layer.batch}, got {image}.")
    enable_cache()
    cut = streams(layer, arch)
    counter = job_counter(layer, cut, arch)
    mapping = map_layer(cut, counter.loads, arch)
    return map_cores(counter.count(image, mapping.segments).cycles, mapping, arch)


def job_counter(
    layer: Layer, cut: Streams, arch: Phantom2D
) -> WordCounter | packing.PositionCounter | packing.ChunkCounter:
    """Returns what counts the jobs of a layer: by lanes where they serve the accelerator, else by words."""
    return packing.lane_counter(layer, cut, arch) if packing.covers(cut, arch) else WordCounter(layer, cut, arch)


def _simulate_layer(layer: Layer, name: str, arch: Phantom2D) -> LayerReport:
    cut = streams(layer, arch)
    counter = job_counter(layer, cut, arch)
    mapping = map_layer(cut, counter.loads, arch)
    cycles, effectual, stacks = [], [], []
    for image in range(layer.batch):
        jobs = counter.count(image, mapping.segments)
        mesh = run_rounds(jobs.cycles, mapping, arch)
        if mesh.cycles * arch.multipliers > _INT64_MAX:
            raise ValueError(
                f"rows and cols: in {name}, {arch.multipliers} multipliers offer more slots than 64 bits hold."
            )
        cycles.append(mesh.cycles)
        effectual.append(jobs.effectual)
        stacks.append(
            {
                "effectual": jobs.effectual,
                "fragmentation": jobs.bins * arch.threads - jobs.effectual,
                "intra_core": (jobs.worked * arch.pes - jobs.bins) * arch.threads,
                "bubble": jobs.bubbles * arch.slots,
                "inter_core": mesh.waiting * arch.slots,
                "idle": mesh.idle * arch.slots,
            }
        )
    return LayerReport(
        name=name,
        kind="conv" if layer.is_conv else "dense",
        weights_shape=tuple(layer.weights.shape),
        activations_shape=tuple(layer.activations.shape[1:]),
        output_shape=layer.output_shape,
        weight_density=counter.nonzero_weights / math.prod(layer.weights.shape),
        activation_density=_density(layer.activations),
        row_axis=mapping.row_axis,
        stream=cut.axis,
        multipliers=arch.multipliers,
        dense_cycles=mapping.dense_cycles,
        dense_macs=layer.positions * layer.reduction * layer.filters,
        cycles=np.array(cycles, np.int64),
        effectual_macs=np.array(effectual, np.int64),
        stack={component: np.array([stack[component] for stack in stacks], np.int64) for component in stacks[0]},
    )


def _density(values: np.ndarray) -> float:
    mask = nonzero(values)
    return int(np.count_nonzero(mask)) / mask.size
