"""Cases of the co-optimization -> rows, tables and figures."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from rich.table import Table

from experiments.cooptimize_cases import Case
from phantom_jax.comparison.summary import new_table
from phantom_jax.frontier import DENSE, at_equal_accuracy, ratios

_OURS = "cycle_aware"
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


@dataclasses.dataclass(frozen=True)
class Summary:
    """Rows of what was found; means are over folds, and spreads their standard deviation over them."""

    points: list[dict[str, Any]]  # by method and target
    equal_accuracy: list[dict[str, Any]]  # by method, at the dense network's accuracy minus the loss
    layers: list[dict[str, Any]]  # by method, target and layer
    loss: float


def summarize(cases: Sequence[Case], loss: float, resamples: int) -> Summary:
    """Returns what cases say together.

    Args:
        cases: The same points in each fold.
        loss: Of accuracy, at which cycles are compared.
        resamples: Of the intervals.
    """
    groups: dict[tuple[str, Any], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.method, case.target), []).append(case)
    points = [_point(group) for group in groups.values()]
    layers = [_layer(group, index) for group in groups.values() for index in range(len(group[0].layers))]
    found = at_equal_accuracy([case.outcome for case in cases], loss, resamples)
    compared = ratios(found, _OURS) if _OURS in found else {}
    equal = []
    for method, values in found.items():
        draws = values["share"]
        ratio, low, high = compared.get(method, (math.nan, math.nan, math.nan))
        low_share, high_share = np.quantile(draws[1:], [0.025, 0.975], method="nearest")
        equal.append(
            {
                "method": method,
                "cycle_share": _finite(draws[0]),
                "cycle_share_low": _finite(low_share),
                "cycle_share_high": _finite(high_share),
                "is_bound": bool(values["is_bound"][0]),
                "ratio": _finite(ratio),
                "ratio_low": _finite(low),
                "ratio_high": _finite(high),
            }
        )
    return Summary(points, equal, layers, loss)


def tables(summary: Summary) -> list[Table]:
    """Returns tables of points and of what is needed at equal accuracy."""
    of_points = new_table(
        "Accuracy and exact cycles on test folds",
        "means over folds, with the standard deviation over them. share: of the cycles of the same mesh and mapping "
        "without skipping. predicted: how far the mean cycles of the final masks on training images, those that they "
        "are adjusted on, are off the mean on test images. proxy: its error against masks that it draws, at the end.",
        ["method", "target"],
        ["accuracy", "validation", "weights", "share", "speed-up", "predicted", "proxy"],
    )
    for row in summary.points:
        of_points.add_row(
            row["method"],
            "" if row["target"] is None else str(row["target"]),
            f"{row['accuracy']:.2%} ± {row['accuracy_spread']:.2%}",
            f"{row['validation_accuracy']:.2%}",
            f"{row['weights']:.3f}",
            f"{row['cycle_share']:.4f} ± {row['cycle_share_spread']:.4f}",
            f"{1 / row['cycle_share']:.2f}x",
            _percent(row["predicted_error"]),
            _percent(row["proxy_error"]),
        )
    equal = new_table(
        f"Cycles at the dense network's accuracy minus {summary.loss * 100:g} points",
        "interpolated between targets on test folds; 95% intervals over folds and images, paired. <: fewer targets "
        "were tried than would do. -: no target is accurate enough.",
        ["method"],
        ["share", "interval", f"over {_OURS}", "interval"],
    )
    for row in summary.equal_accuracy:
        bound = "< " if row["is_bound"] else ""
        equal.add_row(
            row["method"],
            bound + _number(row["cycle_share"], ".4f"),
            f"{_number(row['cycle_share_low'], '.4f')} to {_number(row['cycle_share_high'], '.4f')}",
            _number(row["ratio"], ".2f") + "x",
            f"{_number(row['ratio_low'], '.2f')}x to {_number(row['ratio_high'], '.2f')}x",
        )
    return [of_points, equal]


def figures(summary: Summary) -> dict[str, matplotlib.figure.Figure]:
    """Returns the front, and what the masks look like."""
    return {"front": _front(summary), "densities": _densities(summary)}


def _front(summary: Summary) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(9.0, 5.0), layout="constrained")
    axes = figure.subplots()
    dense = next(row for row in summary.points if row["method"] == DENSE)
    for method in dict.fromkeys(row["method"] for row in summary.points if row["method"] != DENSE):
        rows = sorted(
            (row for row in summary.points if row["method"] in (method, DENSE)), key=lambda row: row["cycle_share"]
        )
        axes.errorbar(
            [row["cycle_share"] for row in rows],
            [row["accuracy"] for row in rows],
            [row["accuracy_spread"] for row in rows],
            [row["cycle_share_spread"] for row in rows],
            marker=_MARKERS[method],
            color=_COLORS[method],
            markeredgecolor="black",
            markeredgewidth=0.4,
            elinewidth=0.6,
            label=method,
        )
    axes.axhline(dense["accuracy"] - summary.loss, color="black", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set(
        xlabel="exact cycles on test images, as a share of those without skipping",
        ylabel="test accuracy",
        ylim=(max(dense["accuracy"] - 8 * max(summary.loss, 0.01), 0), None),
    )
    axes.grid(linewidth=0.3)
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize="small")
    return figure


def _densities(summary: Summary) -> matplotlib.figure.Figure:
    """Returns densities of the layers of each method, at the target that most methods have and is lowest."""
    rows = [row for row in summary.layers if row["method"] != DENSE]
    targets = [row["target"] for row in rows if not isinstance(row["target"], str)]
    shown = [row for row in rows if row["target"] == min(targets)] if targets else rows
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
                color=_COLORS[method],
                label=f"{method} {target}",
            )
    names = list(dict.fromkeys(row["layer"] for row in shown))
    for axes, text in ((of_weights, "share of weights that are kept"), (of_cycles, "exact cycles per image")):
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small", parse_math=False)
        axes.set_yscale("log")
        axes.set(ylabel=text)
    figure.legend(*of_weights.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def _point(group: Sequence[Case]) -> dict[str, Any]:
    shares = [float(np.mean(case.cycles)) / case.dense_cycles for case in group]
    predictions = [abs(case.predicted / float(np.mean(case.cycles)) - 1) for case in group]
    errors = [abs(case.proxy_error) for case in group if case.proxy_error is not None]
    return {
        "method": group[0].method,
        "target": group[0].target,
        "folds": len(group),
        "accuracy": float(np.mean([case.accuracy for case in group])),
        "accuracy_spread": float(np.std([case.accuracy for case in group])),
        "validation_accuracy": float(np.mean([case.validation_accuracy for case in group])),
        "weights": _kept(group),
        "cycle_share": float(np.mean(shares)),
        "cycle_share_spread": float(np.std(shares)),
        "predicted_error": float(np.mean(predictions)),
        "proxy_error": float(np.mean(errors)) if errors else None,
        "seconds": float(np.mean([case.seconds for case in group])),
    }


def _kept(group: Sequence[Case]) -> float:
    sizes = [layer["size"] for layer in group[0].layers]
    densities = [[layer["weights"] for layer in case.layers] for case in group]
    return float(np.average(np.mean(densities, 0), weights=sizes))


def _layer(group: Sequence[Case], index: int) -> dict[str, Any]:
    layers = [case.layers[index] for case in group]
    names = ("weights", "activations", "empty_filters", "empty_kernels", "spread_of_filters", "cycles")
    return {
        "method": group[0].method,
        "target": group[0].target,
        "layer": layers[0]["name"],
        **{name: float(np.mean([layer[name] for layer in layers])) for name in names},
        **{f"stack_{name}": float(np.mean([layer["stack"][name] for layer in layers])) for name in layers[0]["stack"]},
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
