"""Reports -> figures. Nothing is computed here: a figure shows numbers that a report, or a function of it, holds.

Components differ in lightness and in hatching as well as in color, so figures can be read in grey and by the
color-blind. Matplotlib is needed for this module alone, which the package does not import by itself.
"""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.axes
import matplotlib.figure
import matplotlib.patches
import matplotlib.ticker
import numpy as np
from jaxtyping import Float, Int

from phantom_jax.exact import issue_cycles
from phantom_jax.report import LayerReport, Report
from phantom_jax.tables import short

# From dark to light, along a palette of even lightness steps (cividis).
_COLORS = ("#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838")
_HATCHES = ("", "//", "..", "xx", "\\\\", "")
_WIDTH = 9.0  # inches; at 100 dots per inch about what a README shows


def cycle_stack(report: Report) -> matplotlib.figure.Figure:
    """Returns the cycle stack of each layer, in per cent of its thread slots, over all images."""
    names = [*(layer.name for layer in report.layers), "total"]
    of: list[LayerReport | Report] = [*report.layers, report]
    figure, axes = _rows_figure(len(names))
    stack_bars(axes, {name: np.array([100 * (part.shares[name] or 0.0) for part in of]) for name in report.stack})
    axes.set(xlabel="share of thread slots, per cent")
    _label_rows(axes, names)
    figure.legend(loc="outside upper center", ncols=len(report.stack), frameon=False, fontsize="small")
    return figure


def stack_bars(
    axes: matplotlib.axes.Axes,
    shares: Mapping[str, Float[np.ndarray, " rows"]],
    styles: Iterable[tuple[str, str]] = tuple(zip(_COLORS, _HATCHES, strict=True)),
) -> None:
    """Draws a horizontal bar for each row, made of its components.

    Args:
        axes: Where.
        shares: Of each component, in per cent of each row's slots.
        styles: Color and hatching of each component, or more of them.
    """
    left = 0.0
    for (component, of_rows), (color, hatch) in zip(shares.items(), styles, strict=False):
        rows = range(len(of_rows))
        axes.barh(rows, of_rows, left=left, color=color, hatch=hatch, edgecolor="white", linewidth=0.3, label=component)
        left = left + of_rows
    axes.set(xlim=(0, 100))


def speedups(report: Report) -> matplotlib.figure.Figure:
    """Returns each layer's speed-up over an ideally filled dense array, against the bound of perfect skipping."""
    names = [*(layer.name for layer in report.layers), "total"]
    of: list[LayerReport | Report] = [*report.layers, report]
    figure, axes = _rows_figure(len(names))
    rows = range(len(names))
    speedup = np.array([part.speedup_over_ideal_dense or np.nan for part in of])
    bound = [part.perfect_skipping_bound or np.nan for part in of]
    axes.barh(rows, speedup - 1, left=1, color=_COLORS[1], label="speed-up over ideal dense")
    axes.plot(bound, rows, "D", color=_COLORS[4], markeredgecolor="black", label="bound of perfect skipping")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.set(xlabel="speed-up over an ideally filled dense array of as many multipliers")
    _label_rows(axes, names)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def mesh(cores: Int[np.ndarray, "rounds rows cols"], title: str, most_rounds: int = 48) -> matplotlib.figure.Figure:
    """Returns a map of the mesh over time: what share of each round each core was busy, and what rounds last.

    Args:
        cores: Cycles that each core works in each round, from `phantom_jax.core_cycles`.
        title: What it shows.
        most_rounds: Rounds shown, from the first on.
    """
    shown = cores[:most_rounds]
    rounds, rows, cols = shown.shape
    slowest = shown.max(axis=(1, 2))
    busy = shown / np.maximum(slowest, 1)[:, None, None]
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 2.2 + 0.14 * min(rows * cols, 40)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    above.bar(range(rounds), slowest, width=0.9, color=_COLORS[1])
    more = f", first {rounds} of {len(cores)} rounds" if rounds < len(cores) else ""
    above.set_title(title + more, parse_math=False)
    above.set(ylabel="cycles of\nthe round")
    picture = below.imshow(
        busy.reshape(rounds, -1).T, aspect="auto", cmap="cividis_r", vmin=0, vmax=1, interpolation="nearest"
    )
    below.set(xlabel="round", ylabel="core, row by row")
    below.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    for row in range(1, rows):
        below.axhline(row * cols - 0.5, color="white", linewidth=0.6)
    labelled = range(0, rows, -(-rows // 40))
    below.set_yticks([row * cols + (cols - 1) / 2 for row in labelled], [f"row {row}" for row in labelled])
    figure.colorbar(picture, ax=below, label="busy share of the round")
    return figure


def block(
    columns: Int[np.ndarray, "lookahead pes threads"], selector: str, intra_balance: bool
) -> matplotlib.figure.Figure:
    """Returns a block of lookahead masks, with the cycle in which each entry issues.

    Args:
        columns: The masks' bits by column.
        selector: The top-down selector.
        intra_balance: Whether PE p takes column (p + l) mod P of mask l, or column p.
    """
    lookahead, pes, threads = columns.shape
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 0.55 * pes + 1.6), layout="constrained")
    axes = figure.subplots()
    for pe in range(pes):
        taken = [(pe + index) % pes if intra_balance else pe for index in range(lookahead)]
        entries = columns[np.arange(lookahead), taken]
        issued = issue_cycles(entries.sum(1).tolist(), selector, threads)
        for index, (entry, cycle, column) in enumerate(zip(entries, issued, taken, strict=True)):
            for thread, bit in enumerate(entry):
                corner = (index + 0.08, pe * 1.25 + 0.1 + 0.22 * thread)
                color = _COLORS[1] if bit else "white"
                axes.add_patch(
                    matplotlib.patches.Rectangle(corner, 0.84, 0.2, facecolor=color, edgecolor="grey", linewidth=0.5)
                )
            below = pe * 1.25 + 0.22 * threads + 0.26
            axes.text(index + 0.5, below, str(cycle) if cycle else "-", ha="center", va="center", fontsize=9)
            axes.text(index + 0.5, pe * 1.25 - 0.02, f"c{column}", ha="center", va="center", fontsize=6, color="grey")
        axes.text(
            -0.3, pe * 1.25 + 0.45, f"PE {pe}\n{max(issued, default=0)} cycles", ha="right", va="center", fontsize=9
        )
    axes.set(xlim=(-2.2, lookahead), ylim=(pes * 1.25, -0.2), xlabel="lookahead mask l of the block")
    axes.set_xticks(np.arange(lookahead) + 0.5, [str(index) for index in range(lookahead)])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"A block of {lookahead} lookahead masks, {selector}: the bits of each entry and the cycle in which it issues",
        fontsize=10,
    )
    return figure


def _rows_figure(rows: int) -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 1.3 + 0.24 * rows), layout="constrained")
    return figure, figure.subplots()


def _label_rows(axes: matplotlib.axes.Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names], fontsize="small", parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axhline(len(names) - 1.5, color="black", linewidth=0.8)  # above the total
    axes.spines[["top", "right"]].set_visible(False)
