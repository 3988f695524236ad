"""The baselines beside the figures that were published about them (SPEC 9)."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich.table import Table

from phantom_jax.baselines import SCNN, EyerissV2, SparTen
from phantom_jax.layer import Layer
from phantom_jax.report import Ratio, divide
from phantom_jax.tables import new_table
from phantom_jax.workloads import SyntheticWorkload, mobilenet_v1, vgg16

_SCNN_OPTIONS = {
    "as published": SCNN(),
    "PEs wait at each channel": SCNN(barrier="channel"),
    "6144 accumulators": SCNN(accumulators=6144),
}
_EYERISS_BARRIERS = {"pass": "PEs wait at each pass", "layer": "PEs wait at the end of a layer"}
_EYERISS_WIDTH, _EYERISS_SIZE = 0.5, 128  # of the MobileNetV1 that was measured


@dataclasses.dataclass(frozen=True)
class Check:
    """A published figure and the model's."""

    design: str
    quantity: str
    option: str  # of the model
    published: float
    model: Ratio

    @property
    def deviation(self) -> Ratio:
        """The model's figure over the published one, less 1."""
        return None if self.model is None else self.model / self.published - 1


def checks(size: int, seed: int) -> Iterator[Callable[[], list[Check]]]:
    """Yields what measures the checks, a few at a time.

    Args:
        size: Side of VGG16's input picture.
        seed: Of the masks.
    """
    yield lambda: _scnn_vgg16(size, seed)
    for density, published in ((1.0, 0.79), (0.1, 24.0)):
        yield lambda density=density, published=published: _scnn_end_point(size, seed, density, published)
    yield lambda: _sparten(size, seed)
    for masks in ("iid", "channel"):
        yield lambda masks=masks: _eyeriss(seed, masks)


def table(found: Sequence[Check]) -> Table:
    """Returns the checks as a table for `rich`."""
    title, caption = "Baselines beside published figures", "deviation: of the model's figure from the published one."
    made = new_table(title, caption, ("design", "quantity", "option"), ("published", "model", "deviation"))
    for check in found:
        model = "-" if check.model is None else f"{check.model:.2f}"
        deviation = "-" if check.deviation is None else f"{check.deviation:+.0%}"
        made.add_row(check.design, check.quantity, check.option, f"{check.published:g}", model, deviation)
    return made


def _convolutions(size: int, seed: int, densities: str) -> list[Layer]:
    return [layer for layer in SyntheticWorkload(vgg16(size), seed=seed, densities=densities) if layer.is_conv]


def _scnn_vgg16(size: int, seed: int) -> list[Check]:
    layers = _convolutions(size, seed, "scnn")
    designs = _SCNN_OPTIONS | {"bank conflicts": SCNN(bank_conflicts=True)}
    return [
        Check(
            "SCNN", "VGG16's convolutions, over dense", option, 3.52, design.simulate(layers).speedup_over_ideal_dense
        )
        for option, design in designs.items()
    ]


def _scnn_end_point(size: int, seed: int, density: float, published: float) -> list[Check]:
    drawn = SyntheticWorkload(vgg16(size), seed=seed, weight_density=density, activation_density=density)
    layers = [layer for layer in drawn if layer.is_conv]
    quantity = f"densities of {density:g}, over dense"
    return [
        Check("SCNN", quantity, option, published, design.simulate(layers).speedup_over_ideal_dense)
        for option, design in _SCNN_OPTIONS.items()
    ]


def _sparten(size: int, seed: int) -> list[Check]:
    layers = _convolutions(size, seed, "han")
    one_sided = [dataclasses.replace(layer, weights=np.ones(layer.weights.shape, bool)) for layer in layers]
    cycles = {
        "SCNN": int(SCNN().simulate(layers).cycles[0]),
        "one-sided": int(SparTen(greedy_balance=False).simulate(one_sided).cycles[0]),
    }
    rows = []
    for option, design in (("greedy balance", SparTen()), ("none", SparTen(greedy_balance=False))):
        report = design.simulate(layers)
        option = f"VGG16's convolutions, {option}"
        rows.append(Check("SparTen", "mean over dense", option, 4.7, report.speedup_over_ideal_dense))
        for rival, published in (("one-sided", 1.8), ("SCNN", 3.0)):
            ratio = divide(cycles[rival], int(report.cycles[0]))
            rows.append(Check("SparTen", f"mean over {rival}", option, published, ratio))
    return rows


def _eyeriss(seed: int, masks: str) -> list[Check]:
    network = mobilenet_v1(_EYERISS_SIZE, _EYERISS_WIDTH)
    layers = list(SyntheticWorkload(network, seed=seed, masks=masks))
    return [
        Check(
            "EyerissV2",
            "utilization on a sparse MobileNetV1",
            f"{text}, {masks} masks",
            0.45,
            EyerissV2(barrier=barrier).simulate(layers).utilization,
        )
        for barrier, text in _EYERISS_BARRIERS.items()
    ]
