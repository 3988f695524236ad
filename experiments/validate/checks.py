"""The baselines beside the figures that were published about them (SPEC 9)."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table

from phantom_jax.baselines import SCNN, EyerissV2, SparTen
from phantom_jax.layer import Layer
from phantom_jax.report import Ratio, divide
from phantom_jax.tables import new_table
from phantom_jax.workloads import Network, SyntheticWorkload, alexnet, googlenet, mobilenet_v1, vgg16

_SCNN_SOURCE = "Parashar et al. 2017, arXiv:1708.04485"
_SPARTEN_SOURCE = "Gondimalla et al., MICRO 2019"
_EYERISS_SOURCE = "Chen et al. 2019, arXiv:1807.07928"
_DENSE = "a dense array without idle multipliers"
_SCNN_OPTIONS = {
    "as published": SCNN(),
    "PEs wait at each channel": SCNN(barrier="channel"),
    "6144 accumulators": SCNN(accumulators=6144),
}
_BANK_CONFLICTS = {"bank conflicts": SCNN(bank_conflicts=True)}
_FOUR_PES = {
    "accumulators in proportion": SCNN(
        pe_grid=(2, 2), weights_per_step=16, activations_per_step=16, accumulators=16384, banks=512
    ),
    "1024 accumulators per PE": SCNN(pe_grid=(2, 2), weights_per_step=16, activations_per_step=16),
}
_EYERISS_BARRIERS = {"pass": "PEs wait at each pass", "layer": "PEs wait at the end of a layer"}
_EYERISS_WIDTH, _EYERISS_SIZE = 0.5, 128  # of the MobileNetV1 that was measured


@dataclasses.dataclass(frozen=True)
class PublishedFigure:
    """A published figure: what it is of, who published it, and what its model assumes beside the design's rules."""

    design: str
    quantity: str
    published: float
    source: str
    assumed: str


@dataclasses.dataclass(frozen=True)
class Check:
    """A published figure and the model's."""

    figure: PublishedFigure
    option: str  # of the model
    model: Ratio

    @property
    def deviation(self) -> Ratio:
        """The model's figure over the published one, less 1."""
        return None if self.model is None else self.model / self.figure.published - 1

    def row(self) -> dict[str, str | Ratio]:
        """Returns the check as plain values."""
        values = dataclasses.asdict(self.figure) | {"option": self.option, "model": self.model}
        return values | {"deviation": self.deviation}


def checks(size: int, seed: int) -> Iterator[Callable[[], list[Check]]]:
    """Yields what measures the checks, a few at a time.

    Args:
        size: Side of the input picture of VGG16, AlexNet and GoogLeNet.
        seed: Of the masks.
    """
    for name, published in (("VGG16", 3.52), ("AlexNet", 2.37), ("GoogLeNet", 2.19)):
        yield functools.partial(_scnn, size, seed, name, published)
    for density, published in ((1.0, 0.79), (0.1, 24.0)):
        for name in ("VGG16", "GoogLeNet"):
            yield functools.partial(_scnn_end_point, size, seed, name, density, published)
    yield functools.partial(_scnn_one_sided, size, seed)
    yield functools.partial(_scnn_of_four_pes, size, seed)
    yield functools.partial(_sparten, size, seed)
    for mask_kind in ("iid", "channel"):
        yield functools.partial(_eyeriss, seed, mask_kind)


def tables(found: Sequence[Check]) -> list[Table]:
    """Returns the checks, and where their figures come from, as tables for `rich`."""
    title, caption = "Baselines beside published figures", "deviation: of the model's figure from the published one."
    made = new_table(title, caption, ("design", "quantity", "option"), ("published", "model", "deviation"))
    for check in found:
        model = "-" if check.model is None else f"{check.model:.2f}"
        deviation = "-" if check.deviation is None else f"{check.deviation:+.0%}"
        figure = check.figure
        made.add_row(figure.design, figure.quantity, check.option, f"{figure.published:g}", model, deviation)
    sources = new_table(
        "Where the figures come from", "assumed: by the model, beside the rules of the design.",
        ("design", "quantity", "source", "assumed"),
    )  # fmt: skip
    for figure in dict.fromkeys(check.figure for check in found):
        sources.add_row(figure.design, figure.quantity, figure.source, figure.assumed)
    return [made, sources]


@dataclasses.dataclass(frozen=True)
class _Layers:
    """Layers of a network that a figure is of."""

    network: Callable[[int], Network]
    densities: str
    prefix: str  # of the layers' names
    name: str
    assumed: str  # about their masks


_LAYERS = {
    "VGG16": _Layers(vgg16, "scnn", "conv", "VGG16's convolutions", "densities of SCNN's public simulators"),
    "AlexNet": _Layers(alexnet, "han", "conv", "AlexNet's convolutions", "densities of Han et al. 2015"),
    "GoogLeNet": _Layers(
        googlenet,
        "interpolated",
        "inception",
        "GoogLeNet's inception modules",
        "densities of SCNN's public simulators (modules 3a, 5b; those between them on a line)",
    ),
}


def _draw(size: int, seed: int, which: _Layers, density: float | None = None) -> list[Layer]:
    """Returns the layers with independent bits, of published densities or one for all."""
    workload = SyntheticWorkload(
        which.network(size), seed, densities=which.densities, weight_density=density, activation_density=density
    )
    return [workload[index] for index, name in enumerate(workload.names) if name.startswith(which.prefix)]


def _scnn(size: int, seed: int, name: str, published: float) -> list[Check]:
    which = _LAYERS[name]
    layers = _draw(size, seed, which)
    assumed = f"{which.assumed}; independent bits; {_DENSE}"
    figure = PublishedFigure("SCNN", f"{which.name}, over dense", published, _SCNN_SOURCE, assumed)
    return _over_dense(figure, layers, _SCNN_OPTIONS | _BANK_CONFLICTS)


def _scnn_end_point(size: int, seed: int, name: str, density: float, published: float) -> list[Check]:
    which = _LAYERS[name]
    network = "" if name == "GoogLeNet" else f"{name} in place of GoogLeNet; "
    figure = PublishedFigure(
        "SCNN",
        f"{which.name}, densities of {density:g}, over dense",
        published,
        _SCNN_SOURCE,
        f"{network}independent bits; {_DENSE}",
    )
    return _over_dense(figure, _draw(size, seed, which, density), _SCNN_OPTIONS)


def _over_dense(figure: PublishedFigure, layers: Sequence[Layer], designs: Mapping[str, SCNN]) -> list[Check]:
    return [
        Check(figure, option, design.simulate(layers).speedup_over_ideal_dense) for option, design in designs.items()
    ]


def _scnn_one_sided(size: int, seed: int) -> list[Check]:
    which = _LAYERS["GoogLeNet"]
    layers = _draw(size, seed, which, 0.4)
    rows = []
    for kept, dense, published in (("weights", "activations", 1.7), ("activations", "weights", 2.6)):
        rival = [_filled(layer, dense) for layer in layers]
        figure = PublishedFigure(
            "SCNN",
            f"{which.name}, densities of 0.4, over skipping {kept} alone",
            published,
            _SCNN_SOURCE,
            f"GoogLeNet, as in the source's other sweeps; independent bits; the rival is SCNN on {dense} without zeros",
        )
        for option, design in _SCNN_OPTIONS.items():
            cycles = (int(design.simulate(each).cycles[0]) for each in (rival, layers))
            rows.append(Check(figure, option, divide(*cycles)))
    return rows


def _scnn_of_four_pes(size: int, seed: int) -> list[Check]:
    which = _LAYERS["GoogLeNet"]
    layers = _draw(size, seed, which)
    usual = SCNN().simulate(layers)
    assumed = f"{which.assumed}; independent bits; effectual MACs over the slots of all cycles"
    four = f"{assumed}; 2x2 PEs of 16 by 16 multipliers"
    rows = [
        Check(
            PublishedFigure("SCNN", f"{which.name}, utilization", 0.59, _SCNN_SOURCE, assumed),
            "as published",
            usual.utilization,
        )
    ]
    for option, design in _FOUR_PES.items():
        report = design.simulate(layers)
        slower = divide(int(report.cycles[0]), int(usual.cycles[0]))
        utilized = PublishedFigure("SCNN", f"{which.name}, utilization of 4 PEs", 0.35, _SCNN_SOURCE, four)
        lasting = PublishedFigure("SCNN", f"{which.name}, cycles of 4 PEs over those of 64", 1.11, _SCNN_SOURCE, four)
        rows += [Check(utilized, option, report.utilization), Check(lasting, option, slower)]
    return rows


def _sparten(size: int, seed: int) -> list[Check]:
    which = dataclasses.replace(_LAYERS["VGG16"], densities="han")
    layers = _draw(size, seed, which)
    one_sided = [_filled(layer, "weights") for layer in layers]
    cycles = {
        "SCNN": int(SCNN().simulate(layers).cycles[0]),
        "one-sided": int(SparTen(greedy_balance=False).simulate(one_sided).cycles[0]),
    }
    assumed = "VGG16's convolutions stand for all networks; densities of Han et al. 2015; independent bits"
    rows = []
    for option, design in (("greedy balance", SparTen()), ("none", SparTen(greedy_balance=False))):
        report = design.simulate(layers)
        option = f"{which.name}, {option}"
        over_dense = PublishedFigure("SparTen", "mean over dense", 4.7, _SPARTEN_SOURCE, f"{assumed}; {_DENSE}")
        rows.append(Check(over_dense, option, report.speedup_over_ideal_dense))
        for rival, published, how in (
            ("one-sided", 1.8, "the rival is SparTen without balance on weights without zeros"),
            ("SCNN", 3.0, "the rival is the model of SCNN"),
        ):
            figure = PublishedFigure("SparTen", f"mean over {rival}", published, _SPARTEN_SOURCE, f"{assumed}; {how}")
            rows.append(Check(figure, option, divide(cycles[rival], int(report.cycles[0]))))
    return rows


def _eyeriss(seed: int, mask_kind: str) -> list[Check]:
    network = mobilenet_v1(_EYERISS_SIZE, _EYERISS_WIDTH)
    layers = list(SyntheticWorkload(network, seed=seed, mask_kind=mask_kind))
    figure = PublishedFigure(
        "EyerissV2",
        "utilization on a sparse MobileNetV1",
        0.45,
        _EYERISS_SOURCE,
        "weights of SparseML's release, input activations of 0.7; how layers spread over the PEs",
    )
    return [
        Check(figure, f"{text}, {mask_kind} masks", EyerissV2(barrier=barrier).simulate(layers).utilization)
        for barrier, text in _EYERISS_BARRIERS.items()
    ]


def _filled(layer: Layer, side: str) -> Layer:
    """Returns a layer whose weights or activations have no zeros."""
    return dataclasses.replace(layer, **{side: np.ones(getattr(layer, side).shape, bool)})
