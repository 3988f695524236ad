"""Ratios of the comparison: as plain numbers, and as tables."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from experiments.compare.cases import LayerCycles, NetworkRun
from experiments.compare.designs import PAPER_RATIOS, PHANTOM, RIVALS
from phantom_jax.report import Ratio, divide
from phantom_jax.tables import new_table

RATIOS = ("all", "supported", "mean_of_layers")
_TITLE = "Speed-up of Phantom-2D, beside what the paper states"
_CAPTION = (
    "published: rivals of their published size, clocks taken as equal; equal: of as many multipliers as Phantom-2D. "
    "all, supported: ratio of the summed cycles over all layers, and over those that the published rival runs. mean of "
    "layers: mean of the layers' ratios, over all of them. Files: summed over their images. Means over seeds; +-: half "
    "of the range over seeds. paper: on sparse VGG16 and MobileNet; how it weighs layers and networks is not known "
    "from its abstract."
)


def ratio_rows(runs: Iterable[NetworkRun]) -> list[dict[str, Any]]:
    """Returns Phantom-2D's speed-ups, a row for each network, mask kind, size and rival.

    Each of `RATIOS` is a mean over seeds, with half of its range over seeds as `NAME_spread`; None without a layer or
    cycles to compare.

    Args:
        runs: Of `PHANTOM` and of rivals, over the same networks, mask kinds and seeds.
    """
    by_key = {(run.network, run.mask_kind, run.seed, run.design, run.size): run for run in runs}
    groups: dict[tuple[str, str, str, str], list[tuple[NetworkRun, NetworkRun]]] = {}
    for (network, mask_kind, seed, design, size), run in by_key.items():
        if design in RIVALS:
            ours = by_key[network, mask_kind, seed, PHANTOM, "published"]
            groups.setdefault((network, mask_kind, size, design), []).append((ours, run))
    rows = []
    for (network, mask_kind, size, design), pairs in groups.items():
        row: dict[str, Any] = {"network": network, "mask_kind": mask_kind, "size": size, "rival": design}
        row |= {"multipliers": pairs[0][1].multipliers, "seeds": len(pairs)}
        supported = [layer.supported for layer in pairs[0][1].layers]
        row |= {"layers": len(supported), "supported_layers": sum(supported)}
        for name, compare in _COMPARE.items():
            row |= _over_seeds(name, [compare(ours, rival) for ours, rival in pairs])
        rows.append({**row, "paper": PAPER_RATIOS.get(design)})
    return rows


def ablation(runs: Iterable[NetworkRun]) -> list[dict[str, Any]]:
    """Returns the cycles of Phantom-2D's variants over those of `PHANTOM`, a row for each network and mask kind.

    `relative` is a mean over seeds, `relative_spread` half of its range over seeds.
    """
    phantoms = [run for run in runs if run.design.startswith(PHANTOM)]
    base = {(run.network, run.mask_kind, run.seed): run for run in phantoms if run.design == PHANTOM}
    groups: dict[tuple[str, str, str], list[Ratio]] = {}
    for run in phantoms:
        ratio = divide(_total(run), _total(base[run.network, run.mask_kind, run.seed]))
        groups.setdefault((run.network, run.mask_kind, run.design), []).append(ratio)
    return [
        {"network": network, "mask_kind": mask_kind, "variant": design, **_over_seeds("relative", ratios)}
        for (network, mask_kind, design), ratios in groups.items()
    ]


def tables(ratios: Sequence[Mapping[str, Any]], variants: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Returns tables of the rows of `ratio_rows` and of `ablation`, for `rich`."""
    return [_ratio_table(ratios), _ablation_table(variants)]


def _total(run: NetworkRun) -> int:
    return sum(layer.cycles for layer in run.layers)


def _pairs(ours: NetworkRun, rival: NetworkRun) -> list[tuple[LayerCycles, LayerCycles]]:
    return list(zip(ours.layers, rival.layers, strict=True))


def _of_all(ours: NetworkRun, rival: NetworkRun) -> Ratio:
    return divide(_total(rival), _total(ours))


def _of_supported(ours: NetworkRun, rival: NetworkRun) -> Ratio:
    both = [pair for pair in _pairs(ours, rival) if pair[0].supported and pair[1].supported]
    return divide(sum(its.cycles for _, its in both), sum(our.cycles for our, _ in both))


def _of_layers(ours: NetworkRun, rival: NetworkRun) -> Ratio:
    ratios = [divide(its.cycles, our.cycles) for our, its in _pairs(ours, rival)]
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.fmean(known) if known else None


_COMPARE: dict[str, Callable[[NetworkRun, NetworkRun], Ratio]] = dict(
    zip(RATIOS, (_of_all, _of_supported, _of_layers), strict=True)
)


def _over_seeds(name: str, values: Sequence[Ratio]) -> dict[str, Ratio]:
    known = [value for value in values if value is not None]
    if not known:
        return {name: None, f"{name}_spread": None}
    return {name: statistics.fmean(known), f"{name}_spread": (max(known) - min(known)) / 2}


def _ratio_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    headers = ("all", "supported", "mean of layers", "paper")
    table = new_table(_TITLE, _CAPTION, ("network", "mask_kind", "size", "over"), headers)
    previous = None
    for row in rows:
        group = row["network"], row["mask_kind"], row["size"]
        if previous not in (None, group):
            table.add_section()
        shown = group if group != previous else ("", "", "")
        cells = [_with_spread(row, name) for name in RATIOS]
        of_layers = f" ({row['supported_layers']}/{row['layers']})" if row["supported_layers"] < row["layers"] else ""
        cells[1] += of_layers
        table.add_row(*shown, row["rival"], *cells, _text(row["paper"]))
        previous = group
    return table


def _ablation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    networks = list(dict.fromkeys((row["network"], row["mask_kind"]) for row in rows))
    values = {(row["network"], row["mask_kind"], row["variant"]): _with_spread(row, "relative") for row in rows}
    table = new_table(
        "Cycles of Phantom-2D's variants over those of the first",
        "Means over seeds; +-: half of the range over seeds.",
        ("variant",),
        [f"{network}, {mask_kind}" for network, mask_kind in networks],
    )
    for variant in dict.fromkeys(row["variant"] for row in rows):
        table.add_row(variant, *(values[network, mask_kind, variant] for network, mask_kind in networks))
    return table


def _with_spread(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    return f"{row[name]:.2f} +-{row[f'{name}_spread']:.2f}" if row[f"{name}_spread"] else f"{row[name]:.2f}"


def _text(value: Ratio) -> str:
    return "-" if value is None else f"{value:g}"
