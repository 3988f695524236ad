"""What a training run logged, as figures. Nothing is computed here.

Matplotlib is needed for this module, which the package does not import by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure

_SERIES = (  # of each row: label of the axis, and names with their lines
    ("loss", {"loss": "#35456c"}),
    ("accuracy of the batch", {"accuracy": "#35456c"}),
    ("share of weights", {"density": "#35456c"}),
    ("share of dense cycles", {"expected_cycles": "#35456c", "target_cycles": "#948e77", "exact_cycles": "#c8b866"}),
)


def progress(points: Sequence[Mapping[str, Any]], ends: Mapping[str, int]) -> matplotlib.figure.Figure:
    """Returns loss, accuracy, density and cycles over the steps of a run.

    Args:
        points: What the run logged of each step, with the step as `step`.
        ends: The last step of each phase.
    """
    figure = matplotlib.figure.Figure(figsize=(9.0, 8.0), layout="constrained")
    rows = figure.subplots(len(_SERIES), 1, sharex=True)
    for axes, (label, names) in zip(rows, _SERIES, strict=True):
        for name, color in names.items():
            logged = [(point["step"], point[name]) for point in points if point.get(name) is not None]
            if not logged:
                continue
            style = "D" if name == "exact_cycles" else "-"
            axes.plot(*zip(*logged, strict=True), style, color=color, markersize=4, label=name.replace("_", " "))
        if len(names) > 1 and axes.lines:
            axes.legend(frameon=False, fontsize="small")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        for end in list(ends.values())[:-1]:
            axes.axvline(end, color="black", linewidth=0.5)
    rows[-1].set_xlabel("steps")
    begin = 0
    for phase, end in ends.items():
        if end > begin:
            rows[0].text((begin + end) / 2, 1.02, phase, transform=rows[0].get_xaxis_transform(), ha="center")
        begin = end
    return figure
