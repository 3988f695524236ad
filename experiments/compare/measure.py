"""Counts the cases of the comparison."""

from collections.abc import Iterable

from experiments.compare.cases import LayerCycles, MapPoint, NetworkRun
from experiments.compare.designs import PHANTOM, rivals
from phantom_jax.arch import Phantom2D
from phantom_jax.baselines import Design
from phantom_jax.exact import simulate
from phantom_jax.layer import Layer
from phantom_jax.report import Report


def run_design(
    layers: Iterable[Layer],
    design: Phantom2D | Design,
    *,
    network: str,
    mask_kind: str,
    seed: int | None,
    name: str,
    size: str,
) -> NetworkRun:
    """Counts the cycles of a network on a design, over all images; the other arguments are those of `NetworkRun`."""
    report = _report(layers, design)
    return NetworkRun(
        network=network,
        mask_kind=mask_kind,
        seed=seed,
        design=name,
        size=size,
        multipliers=report.multipliers,
        array_multipliers=design.array_multipliers if isinstance(design, Design) else design.multipliers,
        layers=tuple(
            LayerCycles(
                name=layer.name,
                cycles=sum(layer.cycles.tolist()),
                dense_macs=layer.dense_macs * len(layer.cycles),
                effectual_macs=sum(layer.effectual_macs.tolist()),
                supported=layer.supported,
                stack={component: sum(thread_slots.tolist()) for component, thread_slots in layer.stack.items()},
            )
            for layer in report.layers
        ),
    )


def measure_point(
    layer: Layer, arch: Phantom2D, *, seed: int, weight_density: float, activation_density: float
) -> MapPoint:
    """Counts the cycles of a layer on Phantom-2D and on its rivals of as many multipliers.

    Args:
        layer: The layer, named, its masks of these densities.
        arch: Phantom-2D.
        seed: Of the masks.
        weight_density: Of the weights.
        activation_density: Of the activations.
    """
    designs: dict[str, Phantom2D | Design] = {PHANTOM: arch, **rivals(arch, "equal")}
    cycles = {name: int(_report([layer], design).cycles[0]) for name, design in designs.items()}
    return MapPoint(str(layer.name), seed, weight_density, activation_density, cycles)


def _report(layers: Iterable[Layer], design: Phantom2D | Design) -> Report:
    return design.simulate(layers) if isinstance(design, Design) else simulate(layers, design)
