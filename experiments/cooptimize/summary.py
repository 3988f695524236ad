"""Cases of the co-optimization -> rows and tables."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from experiments.cooptimize.cases import Case
from experiments.cooptimize.frontier import DENSE, Outcome, at_equal_accuracy, ratios, share_at
from phantom_jax.tables import new_table


@dataclasses.dataclass(frozen=True)
class Summary:
    """Rows of what was found; means are over folds, and spreads their sample standard deviation."""

    points: list[dict[str, Any]]  # by method and target; gains by ordering channels are shares of the cycles
    equal_accuracy: list[dict[str, Any]]  # by method, at the dense network's accuracy minus the drop
    elsewhere: list[dict[str, Any]]  # likewise of the same networks, by mesh
    layers: list[dict[str, Any]]  # by method, target and layer
    accuracy_drop: float
    compared_with: str


def summarize(cases: Sequence[Case], accuracy_drop: float, compared_with: str, resamples: int) -> Summary:
    """Returns what cases say together.

    Args:
        cases: The same points in each fold.
        accuracy_drop: What may be lost of the dense network's accuracy, where cycles are compared.
        compared_with: The method whose cycles those of the others are divided by.
        resamples: Of the intervals.
    """
    groups: dict[tuple[str, Any], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.method, case.target), []).append(case)
    points = [_point(group) for group in groups.values()]
    layers = [_layer(group, index) for group in groups.values() for index in range(len(group[0].layers))]
    equal = _equal_accuracy(cases, [case.outcome for case in cases], accuracy_drop, compared_with, resamples)
    elsewhere = []
    for mesh in cases[0].shares_elsewhere:
        on_mesh = [dataclasses.replace(case.outcome, shares=np.array(case.shares_elsewhere[mesh])) for case in cases]
        elsewhere += [
            {"mesh": mesh, **row} for row in _equal_accuracy(cases, on_mesh, accuracy_drop, compared_with, resamples)
        ]
    return Summary(points, equal, elsewhere, layers, accuracy_drop, compared_with)


def rows(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """Returns the tables of a summary by name, as `results.json` has them."""
    return {name: getattr(summary, name) for name in ("points", "equal_accuracy", "elsewhere", "layers")}


def tables(summary: Summary) -> list[Table]:
    """Returns tables of points and of what is needed at equal accuracy."""
    of_points = new_table(
        "Accuracy and exact cycles on test folds",
        "means over folds, with the sample standard deviation over them. share: of the cycles of the same mesh and "
        "mapping without skipping. ordering: cycles saved by the order of channels. predicted: how far the mean cycles "
        "on training images are off those on test images. proxy: its error against masks that it draws, at the end.",
        ["method", "target"],
        ["accuracy", "validation", "weights", "share", "speed-up", "ordering", "predicted", "proxy"],
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
            _percent(row["ordering_gain"] or None),
            _percent(row["predicted_error"]),
            _percent(row["proxy_error"]),
        )
    found = [of_points, _equal_table("this mesh", summary, summary.equal_accuracy)]
    for mesh in dict.fromkeys(row["mesh"] for row in summary.elsewhere):
        rows = [row for row in summary.elsewhere if row["mesh"] == mesh]
        found.append(_equal_table(f"the mesh {mesh}", summary, rows))
    return found


def _equal_table(mesh: str, summary: Summary, rows: Sequence[Mapping[str, Any]]) -> Table:
    compared_with = summary.compared_with
    table = new_table(
        f"Cycles on {mesh} at the dense network's accuracy minus {summary.accuracy_drop * 100:g} points",
        "interpolated between targets on test folds; ~: no target was accurate enough, so between the best of them and "
        "the dense network. Intervals of 95% over folds and images, paired. < and >: bounds, as the target of fewest "
        f"cycles was accurate enough, of the method or of {compared_with}; ?: of both. bounds: in how many draws that "
        f"of the method was. by validation: over {compared_with}, with targets chosen on validation images.",
        ["method"],
        ["share", "interval", "bounds", f"over {compared_with}", "interval", "by validation"],
    )
    is_bound = any(row["is_bound"] for row in rows if row["method"] == compared_with)
    for row in rows:
        of_ratio = {(True, False): "< ", (False, True): "> ", (True, True): "? "}.get((row["is_bound"], is_bound), "")
        of_share = "< " if row["is_bound"] else ""
        if not row["is_reached"]:
            of_ratio = of_share = "~ "
        table.add_row(
            row["method"],
            f"{of_share}{row['cycle_share']:.4f}",
            f"{row['cycle_share_low']:.4f} to {row['cycle_share_high']:.4f}",
            f"{row['bound_draws']:.0%}",
            of_ratio * (row["method"] != compared_with and row["ratio"] is not None) + _times(row["ratio"]),
            f"{_times(row['ratio_low'])} to {_times(row['ratio_high'])}",
            _times(row["validation_ratio"]),
        )
    return table


def _equal_accuracy(
    cases: Sequence[Case], outcomes: Sequence[Outcome], accuracy_drop: float, compared_with: str, resamples: int
) -> list[dict[str, Any]]:
    """Returns a row for each method: what it needs, and how many times that of the method compared with.

    Outcomes are those of the cases, on some mesh.
    """
    found = at_equal_accuracy(outcomes, accuracy_drop, resamples)
    compared = ratios(found, compared_with) if compared_with in found else {}
    chosen = {method: _chosen_on_validation(cases, outcomes, method, accuracy_drop) for method in found}
    rows = []
    for method, values in found.items():
        draws = values["share"]
        ratio, low, high = compared.get(method, (None, None, None))
        low_share, high_share = np.quantile(draws[1:], [0.025, 0.975], method="nearest")
        rows.append(
            {
                "method": method,
                "cycle_share": float(draws[0]),
                "cycle_share_low": float(low_share),
                "cycle_share_high": float(high_share),
                "is_bound": bool(values["is_bound"][0]),
                "is_reached": bool(values["is_reached"][0]),
                "bound_draws": float(values["is_bound"][1:].mean()),
                "validation_ratio": chosen[method] / chosen[compared_with] if compared_with in chosen else None,
                "ratio": ratio,
                "ratio_low": low,
                "ratio_high": high,
            }
        )
    return rows


def _chosen_on_validation(
    cases: Sequence[Case], outcomes: Sequence[Outcome], method: str, accuracy_drop: float
) -> float:
    """Returns the share of cycles on test images at which a method loses so much accuracy on validation images."""
    accuracies: dict[Any, list[float]] = {}
    shares: dict[Any, list[float]] = {}
    for case, outcome in zip(cases, outcomes, strict=True):
        if case.method in (DENSE, method):
            accuracies.setdefault(outcome.point, []).append(case.validation_accuracy)
            shares.setdefault(outcome.point, []).append(float(outcome.shares.mean()))
    means = [float(np.mean(values)) for values in accuracies.values()]
    wanted = float(np.mean(accuracies[DENSE, None])) - accuracy_drop
    return share_at(means, [float(np.mean(values)) for values in shares.values()], wanted)


def _point(group: Sequence[Case]) -> dict[str, Any]:
    shares = [float(np.mean(case.cycles)) / case.dense_cycles for case in group]
    predictions = [abs(case.predicted / float(np.mean(case.cycles)) - 1) for case in group]
    errors = [abs(case.proxy_error) for case in group if case.proxy_error is not None]
    return {
        "method": group[0].method,
        "target": group[0].target,
        "folds": len(group),
        "accuracy": float(np.mean([case.accuracy for case in group])),
        "accuracy_spread": _spread([case.accuracy for case in group]),
        "validation_accuracy": float(np.mean([case.validation_accuracy for case in group])),
        "weights": _kept(group),
        "cycle_share": float(np.mean(shares)),
        "ordering_gain": 1 - float(np.mean([np.sum(case.cycles) / np.sum(case.unordered_cycles) for case in group])),
        "cycle_share_spread": _spread(shares),
        "predicted_error": float(np.mean(predictions)),
        "proxy_error": float(np.mean(errors)) if errors else None,
        "seconds": float(np.mean([case.seconds for case in group])),
    }


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


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


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
