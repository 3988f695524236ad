"""Cases of the fidelity studies -> figures. Nothing is computed here; Matplotlib is needed for this module alone.

Series differ in marker and line style as well as in lightness. Error bars are of two standard errors.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from experiments.fidelity.cases import Case, ErrorCase, GradientCase, RankCase, StaleCase
from experiments.harness.files import Draw
from phantom_jax.tables import short

_COLORS = {False: "#00224e", True: "#b08f26"}  # by inter_balance
_MARKERS = {False: "o", True: "s"}
_WIDTH = 9.0  # inches
_AMOUNTS = {"redrawn": "share of the activation bits redrawn", "scaled": "factor of the activations' density"}
_LINE: dict[str, Any] = {"markersize": 3.5, "linewidth": 1.0, "elinewidth": 0.8, "capsize": 2}


def figures(cases: Sequence[Case]) -> dict[str, Draw]:
    """Returns what draws a figure of each study that has cases, by name; of stale calibrations, of each drift."""
    draws: dict[str, Callable[[Any], matplotlib.figure.Figure]] = {
        "error": errors,
        "rank": ranks,
        "gradient": gradients,
    }
    made: dict[str, Draw] = {}
    for study, draw in draws.items():
        if of := [case for case in cases if case.study == study]:
            made[study] = functools.partial(draw, of)
    drifted = [case for case in cases if isinstance(case, StaleCase)]
    for drift in dict.fromkeys(case.drift for case in drifted):
        made[f"stale_{drift}"] = functools.partial(stale, [case for case in drifted if case.drift == drift])
    return made


def errors(cases: Sequence[ErrorCase]) -> matplotlib.figure.Figure:
    """Returns the error of the proxy over the mean density, a panel per layer."""
    figure, panels = _panels([case.layer for case in cases])
    for layer, axes in panels.items():
        of = [case for case in cases if case.layer == layer]
        for mask_kind, balance in dict.fromkeys((case.mask_kind, case.inter_balance) for case in of):
            line = sorted(
                (case for case in of if (case.mask_kind, case.inter_balance) == (mask_kind, balance)),
                key=lambda case: case.density,
            )
            axes.errorbar(
                [case.density for case in line],
                _per_cent(case.error for case in line),
                2 * _per_cent(case.standard_error for case in line),
                color=_COLORS[balance],
                marker=_MARKERS[balance],
                linestyle={"iid": "-", "channel": "--"}[mask_kind],
                label=f"{mask_kind}, {_label(balance)}",
                **_LINE,
            )
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    return _finish(figure, panels, "mean weight probability", "error of the proxy, per cent")


def ranks(cases: Sequence[RankCase]) -> matplotlib.figure.Figure:
    """Returns the proxy's cycles of each weight pattern against the exact means, a panel per case."""
    by_name = {f"{case.layer}, {'on' if case.inter_balance else 'off'}": case for case in cases}
    figure, panels = _panels(list(by_name), columns=4)
    for name, axes in panels.items():
        case = by_name[name]
        axes.errorbar(
            case.exact,
            case.proxy,
            xerr=2 * np.array(case.standard_errors),
            color=_COLORS[case.inter_balance],
            marker=_MARKERS[case.inter_balance],
            label="a weight pattern",
            linestyle="",
            **_LINE,
        )
        middle = float(np.mean(axes.get_xlim()))
        axes.axline((middle, middle), slope=1, color="black", linewidth=0.6, label="equal")
        axes.locator_params(nbins=3)
    return _finish(figure, panels, "exact cycles, mean over draws; inter_balance off or on", "proxy, cycles")


def gradients(cases: Sequence[GradientCase]) -> matplotlib.figure.Figure:
    """Returns the cosines of the proxy's gradient with finite differences, and those that noise allows."""
    layers = list(dict.fromkeys(case.layer for case in cases))
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 1.6 + 0.3 * len(layers)), layout="constrained")
    pair = figure.subplots(1, 2, sharey=True)
    for axes, value, halves in zip(pair, ("cosine", "centered"), ("halves", "centered_halves"), strict=True):
        for balance in dict.fromkeys(case.inter_balance for case in cases):
            of = [case for case in cases if case.inter_balance == balance]
            rows = [layers.index(case.layer) + (0.15 if balance else -0.15) for case in of]
            for name, face in ((value, _COLORS[balance]), (halves, "white")):
                axes.plot(
                    np.array([getattr(case, name) for case in of], float),
                    rows,
                    _MARKERS[balance],
                    color=_COLORS[balance],
                    markerfacecolor=face,
                    markersize=5,
                    label=f"{'proxy and exact' if name == value else 'halves of the draws'}, {_label(balance)}",
                )
        axes.set_yticks(range(len(layers)), layers, fontsize="small", parse_math=False)
        axes.set_xlabel("cosine" if value == "cosine" else "cosine of slopes less their mean")
        axes.grid(axis="x", linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    pair[0].set_ylim(len(layers) - 0.5, -0.5)
    _legend(figure, pair[0])
    return figure


def stale(cases: Sequence[StaleCase]) -> matplotlib.figure.Figure:
    """Returns the error of old and of new calibrations over the amount of a drift, a panel per layer."""
    figure, panels = _panels([case.layer for case in cases])
    for layer, axes in panels.items():
        for balance in dict.fromkeys(case.inter_balance for case in cases):
            line = sorted(
                (case for case in cases if (case.layer, case.inter_balance) == (layer, balance)),
                key=lambda case: case.amount,
            )
            for name, style in (("stale", "-"), ("fresh", ":")):
                axes.errorbar(
                    [case.amount for case in line],
                    _per_cent(getattr(case, f"{name}_error") for case in line),
                    2 * _per_cent(case.standard_error for case in line),
                    color=_COLORS[balance],
                    marker=_MARKERS[balance],
                    markerfacecolor=_COLORS[balance] if name == "stale" else "white",
                    linestyle=style,
                    label=f"{name}, {_label(balance)}",
                    **_LINE,
                )
        axes.axhline(0, color="black", linewidth=0.6)
    return _finish(figure, panels, _AMOUNTS[cases[0].drift], "error, per cent")


def _panels(names: Sequence[str], columns: int = 3) -> tuple[matplotlib.figure.Figure, dict[str, matplotlib.axes.Axes]]:
    titles = list(dict.fromkeys(names))
    rows = -(-len(titles) // columns)
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 0.9 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for spare in grid[len(titles) :]:
        spare.set_axis_off()
    return figure, dict(zip(titles, grid, strict=False))


def _finish(
    figure: matplotlib.figure.Figure, panels: dict[str, matplotlib.axes.Axes], x: str, y: str
) -> matplotlib.figure.Figure:
    for title, axes in panels.items():
        axes.set_title(short(title), fontsize="small", parse_math=False)
        axes.tick_params(labelsize="x-small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(x, fontsize="small")
    figure.supylabel(y, fontsize="small")
    _legend(figure, next(iter(panels.values())))
    return figure


def _legend(figure: matplotlib.figure.Figure, axes: matplotlib.axes.Axes) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize="small"
    )


def _label(inter_balance: bool) -> str:
    return f"inter_balance {'on' if inter_balance else 'off'}"


def _per_cent(values: Iterable[float | None]) -> Any:
    return 100 * np.array(list(values), float)
