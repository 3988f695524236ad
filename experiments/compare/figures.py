"""Cases of the comparison -> figures. Nothing but ratios is computed; Matplotlib is needed for this module alone."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from experiments.compare.cases import MapPoint, NetworkRun
from experiments.compare.designs import PAPER_RATIOS, PHANTOM, RIVALS
from experiments.harness.files import Draw
from phantom_jax.plotting import stack_bars

_WIDTH = 9.0  # inches
# From dark to light, along a palette of even lightness steps (cividis), a color and a marker per rival.
_COLORS = dict(zip(RIVALS, ("#00224e", "#35456c", "#666970", "#948e77", "#c8b866"), strict=True))
_MARKERS = dict(zip(RIVALS, "osD^v", strict=True))
_PARTS = {  # components of all stacks, like ones in like colors
    "effectual": ("#00224e", ""),
    "ineffectual": ("#8c2d04", ""),
    "outside": ("#8c2d04", "//"),
    "fragmentation": ("#35456c", "//"),
    "conflict": ("#35456c", "xx"),
    "intra_core": ("#7d7c78", ".."),
    "inter_unit": ("#7d7c78", ".."),
    "bubble": ("#948e77", "xx"),
    "inter_core": ("#c8b866", "\\\\"),
    "inter_pe": ("#c8b866", "\\\\"),
    "inter_cluster": ("#c8b866", "--"),
    "idle": ("#fee838", ""),
    "rounding": ("#cccccc", ""),
}


def figures(
    runs: Sequence[NetworkRun], points: Sequence[MapPoint], variants: Sequence[Mapping[str, Any]]
) -> dict[str, Draw]:
    """Returns what draws all figures, by name.

    Args:
        runs: Networks on designs; of each network the first mask kind and seed are drawn.
        points: Of the map; without, there is no map.
        variants: Rows of `ablation`.
    """
    draws: dict[str, Draw] = {
        "speedups": functools.partial(speedups, runs),
        "ablation": functools.partial(ablation, variants),
        "stacks": functools.partial(stacks, runs),
    }
    return draws | ({"map": functools.partial(density_map, points)} if points else {})


def speedups(runs: Sequence[NetworkRun]) -> matplotlib.figure.Figure:
    """Returns Phantom-2D's speed-up over rivals of as many multipliers, per layer and in total, a panel per network."""
    shown = _shown(runs)
    networks = list(dict.fromkeys(run.network for run in shown))
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 3.2 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), squeeze=False)[:, 0]
    for axes, network in zip(panels, networks, strict=True):
        of = {run.design: run for run in shown if run.network == network}
        names = [*(layer.name for layer in of[PHANTOM].layers), "total"]
        for rival in RIVALS:
            ratios = _ratios(of[rival], of[PHANTOM])
            axes.plot(
                range(len(names)),
                ratios,
                _MARKERS[rival],
                color=_COLORS[rival],
                markeredgecolor="black",
                markeredgewidth=0.4,
                markersize=5,
                label=rival,
            )
        axes.axhline(1, color="black", linewidth=0.8)
        axes.axvline(len(names) - 1.5, color="black", linewidth=0.8)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}x")
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small", parse_math=False)
        axes.set(xlim=(-0.6, len(names) - 0.4), ylabel="speed-up of Phantom-2D")
        axes.set_title(f"{network}, {of[PHANTOM].mask_kind} masks", fontsize="medium", parse_math=False)
        axes.grid(axis="y", linewidth=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(RIVALS), frameon=False)
    return figure


def ablation(variants: Sequence[Mapping[str, Any]]) -> matplotlib.figure.Figure:
    """Returns the cycles of Phantom-2D's variants over those of the first, with their range over seeds."""
    names = list(dict.fromkeys(row["variant"] for row in variants))
    groups = list(dict.fromkeys((row["network"], row["mask_kind"]) for row in variants))
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 1.5 + 0.12 * len(names) * len(groups)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(groups)
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 0.95, len(groups)))
    for index, (network, mask_kind) in enumerate(groups):
        rows = [row for row in variants if (row["network"], row["mask_kind"]) == (network, mask_kind)]
        axes.barh(
            np.arange(len(rows)) + (index - (len(groups) - 1) / 2) * height,
            [row["relative"] or np.nan for row in rows],
            height,
            xerr=[row["relative_spread"] or 0 for row in rows],
            color=shades[index],
            label=f"{network}, {mask_kind}",
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="cycles, relative")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


def stacks(runs: Sequence[NetworkRun]) -> matplotlib.figure.Figure:
    """Returns where the slots of all designs go over a network, side by side; rivals of as many multipliers."""
    shown = _shown(runs)
    networks = list(dict.fromkeys(run.network for run in shown))
    designs = (PHANTOM, *RIVALS)
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 1.6 + 0.3 * len(designs) * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), squeeze=False)[:, 0]
    for axes, network in zip(panels, networks, strict=True):
        of = {run.design: run for run in shown if run.network == network}
        shares = {part: np.array([_share(of[design], part) for design in designs]) for part in _PARTS}
        stack_bars(axes, shares, _PARTS.values())
        axes.set_yticks(range(len(designs)), designs, fontsize="small")
        axes.invert_yaxis()
        axes.set_title(f"{network}, {of[PHANTOM].mask_kind} masks", fontsize="medium", parse_math=False)
    panels[-1].set(xlabel="share of slots, per cent")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=7, frameon=False, fontsize="small")
    return figure


def density_map(points: Sequence[MapPoint]) -> matplotlib.figure.Figure:
    """Returns Phantom-2D's speed-up over each rival by densities, with the contour of the paper's ratio."""
    weights = sorted({point.weight_density for point in points})
    activations = sorted({point.activation_density for point in points})
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True).reshape(-1)
    for axes, rival in zip(panels, PAPER_RATIOS, strict=True):
        values = np.full((len(weights), len(activations)), np.nan)
        for point in points:
            at = weights.index(point.weight_density), activations.index(point.activation_density)
            some = point.cycles[PHANTOM] and point.cycles[rival]  # or there is no ratio, or none on a logarithmic axis
            values[at] = point.cycles[rival] / point.cycles[PHANTOM] if some else np.nan
        if np.isnan(values).all():
            axes.set_title(f"over {rival}: no work", fontsize="medium")
            continue
        picture = axes.pcolormesh(activations, weights, values, cmap="cividis", norm="log", shading="nearest")
        if min(len(weights), len(activations)) > 1 and np.nanmin(values) < PAPER_RATIOS[rival] < np.nanmax(values):
            lines = axes.contour(
                activations, weights, values, levels=[PAPER_RATIOS[rival]], colors="white", linewidths=1.5
            )
            axes.clabel(lines, fmt="paper's %gx")
            note = ""
        else:
            note = f", paper's {PAPER_RATIOS[rival]:g}x nowhere"
        axes.set_title(f"over {rival}{note}", fontsize="medium")
        ticks = np.geomspace(np.nanmin(values), np.nanmax(values), 5)
        figure.colorbar(picture, ax=axes, format="%.2gx", ticks=ticks).minorticks_off()
    for axes in panels[2:]:
        axes.set(xlabel="activation density")
    for axes in panels[::2]:
        axes.set(ylabel="weight density")
    figure.suptitle(f"Speed-up of Phantom-2D on {points[0].layer} at equal multipliers", fontsize="medium")
    return figure


def _shown(runs: Sequence[NetworkRun]) -> list[NetworkRun]:
    """Returns the runs that figures show: of each network the first mask kind and seed, rivals at equal multipliers."""
    size = "equal" if any(run.size == "equal" for run in runs) else "published"
    first = {}
    for run in runs:
        first.setdefault(run.network, (run.mask_kind, run.seed))
    return [
        run
        for run in runs
        if (run.mask_kind, run.seed) == first[run.network] and (run.design == PHANTOM or run.size == size)
    ]


def _ratios(rival: NetworkRun, ours: NetworkRun) -> list[float]:
    pairs = [(its.cycles, our.cycles) for its, our in zip(rival.layers, ours.layers, strict=True)]
    pairs.append((sum(its for its, _ in pairs), sum(our for _, our in pairs)))
    return [its / our if our else np.nan for its, our in pairs]


def _share(run: NetworkRun, part: str) -> float:
    thread_slots = sum(layer.cycles for layer in run.layers) * run.multipliers
    return 100 * sum(layer.stack.get(part, 0) for layer in run.layers) / thread_slots if thread_slots else 0.0
