"""The co-optimization in figures: the front, and what the masks look like."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from experiments.cooptimize.cases import SPARSER
from experiments.cooptimize.frontier import DENSE
from experiments.cooptimize.summary import Summary
from experiments.harness.files import Draw
from phantom_jax.plotting import stack_bars
from phantom_jax.workloads import read_npz

_COLORS = {  # from dark to light, along a palette of even lightness steps (cividis)
    "cycle_aware": "#00224e",
    "no_mesh": "#1a386f",
    "no_activations": "#434e6c",
    "stale": "#61656f",
    "mac_penalty": "#7d7c78",
    "mac_aware_magnitude": "#9b9476",
    "global_magnitude": "#bcae6c",
    "uniform_magnitude": "#dec958",
    "n_m": "#fee838",
}
_MARKERS = dict(zip(_COLORS, "o<>XsD^vP", strict=True))


def figures(summary: Summary, masks: Mapping[str, pathlib.Path]) -> dict[str, Draw]:
    """Returns what draws the front, densities of layers, stacks before and after, and densities of kernels.

    Args:
        summary: What was found.
        masks: By title, workloads whose kernels are shown beside each other.
    """
    return {
        "front": functools.partial(_front, summary),
        "densities": functools.partial(_densities, summary),
        "stacks": functools.partial(_stacks, summary),
        "kernels": functools.partial(_kernels, masks),
    }


def _front(summary: Summary) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(9.0, 5.0), layout="constrained")
    axes = figure.subplots()
    dense = next(row for row in summary.points if row["method"] == DENSE)
    lowest = min(row["accuracy"] - row["accuracy_spread"] for row in summary.points)
    for method in dict.fromkeys(row["method"] for row in summary.points if row["method"] != DENSE):
        rows = sorted(
            (row for row in summary.points if row["method"] in (method, DENSE)), key=lambda row: row["cycle_share"]
        )
        axes.errorbar(
            [row["cycle_share"] for row in rows],
            [row["accuracy"] for row in rows],
            [row["accuracy_spread"] for row in rows],
            [row["cycle_share_spread"] for row in rows],
            marker=_MARKERS[method.removesuffix(SPARSER)],
            color=_COLORS[method.removesuffix(SPARSER)],
            linestyle="--" if method.endswith(SPARSER) else "-",
            markeredgecolor="black",
            markeredgewidth=0.4,
            elinewidth=0.6,
            label=method,
        )
    axes.axhline(dense["accuracy"] - summary.accuracy_drop, color="black", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(matplotlib.ticker.LogLocator(subs=(2, 3, 5)))
    for axis_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis_formatter("{x:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes.set(
        xlabel="exact cycles on test images, as a share of those without skipping",
        ylabel="test accuracy",
        ylim=(max(dense["accuracy"] - 8 * max(summary.accuracy_drop, 0.01), lowest - 0.005, 0), None),
    )
    axes.grid(linewidth=0.3)
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize="small")
    return figure


def _densities(summary: Summary) -> matplotlib.figure.Figure:
    """Returns densities of the layers of each method, at its last target."""
    rows = [row for row in summary.layers if row["method"] != DENSE]
    last = {row["method"]: row["target"] for row in rows}
    shown = [row for row in rows if row["target"] == last[row["method"]]]
    figure = matplotlib.figure.Figure(figsize=(9.0, 4.0), layout="constrained")
    of_weights, of_cycles = figure.subplots(1, 2)
    methods = list(dict.fromkeys((row["method"], row["target"]) for row in shown))
    for index, (method, target) in enumerate(methods):
        layers = [row for row in shown if (row["method"], row["target"]) == (method, target)]
        places = np.arange(len(layers)) + (index - (len(methods) - 1) / 2) * 0.8 / len(methods)
        for axes, name in ((of_weights, "weights"), (of_cycles, "cycles")):
            axes.bar(
                places,
                [row[name] for row in layers],
                0.8 / len(methods),
                color=_COLORS[method.removesuffix(SPARSER)],
                hatch="///" if method.endswith(SPARSER) else None,
                label=f"{method} {target}",
            )
    names = list(dict.fromkeys(row["layer"] for row in shown))
    for axes, text in ((of_weights, "share of weights that are kept"), (of_cycles, "exact cycles per image")):
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small", parse_math=False)
        axes.set_yscale("log")
        axes.set(ylabel=text)
    figure.legend(*of_weights.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def _stacks(summary: Summary) -> matplotlib.figure.Figure:
    """Returns where the cycles of each point go, over all layers."""
    points = [(row["method"], row["target"]) for row in summary.points]
    figure = matplotlib.figure.Figure(figsize=(9.0, 1.3 + 0.24 * len(points)), layout="constrained")
    axes = figure.subplots()
    components = [name for name in summary.layers[0] if name.startswith("stack_")]
    sums = np.array([[_sum(summary, point, name) for point in points] for name in components])
    names = [name.removeprefix("stack_") for name in components]
    stack_bars(axes, dict(zip(names, 100 * sums / sums.sum(0), strict=True)))
    axes.set_yticks(range(len(points)), [f"{method} {target or ''}" for method, target in points], fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="share of thread slots, per cent")
    figure.legend(loc="outside upper center", ncols=len(components), frameon=False, fontsize="small")
    return figure


def _sum(summary: Summary, point: tuple[str, Any], name: str) -> float:
    return sum(row[name] for row in summary.layers if (row["method"], row["target"]) == point)


def _kernels(masks: Mapping[str, pathlib.Path]) -> matplotlib.figure.Figure:
    """Returns densities of the kernels of the layer with most weights, filter by channel, filters by their density."""
    figure = matplotlib.figure.Figure(figsize=(9.0, 3.2), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, len(masks), sharey=True))
    pictures = []
    for axes, (title, path) in zip(all_axes, masks.items(), strict=True):
        layer = max(read_npz(path), key=lambda layer: layer.weights.size)
        kernels = (np.asarray(layer.weights) != 0).reshape(-1, *layer.weights.shape[-2:]).mean(0)
        ordered = kernels[np.argsort(-kernels.sum(1), kind="stable")][:, np.argsort(-kernels.sum(0), kind="stable")]
        pictures.append(axes.imshow(ordered, cmap="cividis_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest"))
        axes.set_title(title, fontsize="small", parse_math=False)
        axes.set(xlabel=f"filters of {layer.name}")
    all_axes[0].set(ylabel="input channels")
    figure.colorbar(pictures[0], ax=list(all_axes), label="share of weights kept")
    return figure
