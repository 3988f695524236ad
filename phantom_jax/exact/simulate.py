"""The exact model: layers in, cycles and cycle stacks out (SPEC 3 to 6)."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jaxtyping import Int64

from phantom_jax.arch import Phantom2D, check_arch
from phantom_jax.checks import integer
from phantom_jax.exact.cache import enable_cache
from phantom_jax.exact.jobs import JobCounter, cycle_stack
from phantom_jax.exact.lanes import packing
from phantom_jax.exact.lowering import Streams, streams
from phantom_jax.exact.mesh import map_cores, map_layer, run_rounds
from phantom_jax.exact.tiles import overlapped
from phantom_jax.exact.words import WordCounter
from phantom_jax.layer import Layer, check_layers
from phantom_jax.report import LayerReport, Report


def simulate(layers: Layer | Iterable[Layer], arch: Phantom2D) -> Report:
    """Counts the exact cycles that layers take on Phantom-2D, and where every thread slot goes.

    Images of a batch are simulated one by one; weights and activations are read as masks (`!= 0`). Layers are taken
    from the iterable as they are needed, three at a time at most. So a generator keeps few layers' masks in memory,
    and wrapping it in a progress bar shows progress.

    Args:
        layers: One layer or several; all with the same number of images B.
        arch: The accelerator.

    Returns:
        A report with int64 results of shape `[B]`.

    Raises:
        ValueError: There is no layer, something is not a layer or holds traced arrays, layers differ in B, `arch` is
            not an accelerator, or its thread slots do not fit 64 bits.
        MemoryError: A layer on this accelerator takes more memory than there is.
    """
    check_arch(arch)
    named = check_layers(layers, traced=False)
    enable_cache()
    return Report.of(overlapped(lambda layer: _simulate_layer(*layer, arch), named), dataclasses.asdict(arch))


def core_cycles(layer: Layer, arch: Phantom2D, image: int = 0) -> Int64[np.ndarray, "rounds rows cols"]:
    """Returns the cycles that each core of the mesh works in each round of a layer, for one image.

    A round lasts as long as the slowest of its cores, and the layer the sum of its rounds.

    Args:
        layer: The layer.
        arch: The accelerator; the result has `arch.rows` by `arch.cols` cores.
        image: Index of the image in the batch.

    Raises:
        ValueError: There is no such image.
        MemoryError: The layer on this accelerator takes more memory than there is.
    """
    if integer("image", image, minimum=0) >= layer.batch:
        raise ValueError(f"image must be below the batch of {layer.batch}, got {image}.")
    enable_cache()
    with _memory_errors_named(layer.name or "layer0", arch):
        stream = streams(layer, arch)
        counter = job_counter(layer, stream, arch)
        mapping = map_layer(stream, counter.loads, arch)
        return map_cores(counter.count(image, mapping.segments).cycles, mapping, arch)


def job_counter(layer: Layer, stream: Streams, arch: Phantom2D) -> JobCounter:
    """Returns what counts the jobs of a layer: by lanes where they serve the accelerator, else by words."""
    by_lanes = packing.covers(stream, arch)
    return packing.lane_counter(layer, stream, arch) if by_lanes else WordCounter(layer, stream, arch)


@contextlib.contextmanager
def _memory_errors_named(layer: str, arch: Phantom2D) -> Iterator[None]:
    """Says of NumPy's and XLA's errors where there was not enough memory."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise MemoryError(
            f"layer {layer} takes more memory than there is with pes {arch.pes}, threads {arch.threads} and lookahead "
            f"{arch.lookahead}: {error}"
        ) from error


def _simulate_layer(layer: Layer, name: str, arch: Phantom2D) -> LayerReport:
    cycles, stacks = [], []
    with _memory_errors_named(name, arch):
        stream = streams(layer, arch)
        counter = job_counter(layer, stream, arch)
        mapping = map_layer(stream, counter.loads, arch)
        for image in range(layer.batch):
            jobs = counter.count(image, mapping.segments)
            mesh = run_rounds(jobs.cycles, mapping, arch)
            cycles.append(mesh.cycles)
            stacks.append(cycle_stack(jobs, mesh, arch))
    return LayerReport.of(
        layer,
        name,
        cycles=cycles,
        stacks=stacks,
        dense_cycles=mapping.dense_cycles,
        multipliers=arch.multipliers,
        nonzero_weights=counter.nonzero_weights,
        row_axis=mapping.row_axis,
        stream=stream.axis,
    )
