"""What the studies found, per layer and over all of them: as plain numbers, and as tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from experiments.fidelity.cases import Case, ErrorCase, GradientCase, RankCase, StaleCase
from phantom_jax.report import Ratio
from phantom_jax.tables import new_table, short

TOTAL = "total"
_TITLES = {
    "error": "Error of the proxy against the mean of exact cycles, in per cent",
    "rank": "Ranks of weight patterns of equal density",
    "gradient": "Cosines of gradients with finite differences of the exact mean",
    "stale": "Error of a calibration after its activations have changed, in per cent",
}
_CAPTIONS = {
    "error": (
        "mean: of absolute errors; bias: of signed ones; s.e.: mean standard error of the exact means, in per cent of "
        "them. Without any error of the proxy, mean would be about 0.8 s.e."
    ),
    "rank": (
        "spearman: of proxy and exact means; halves: of two independent halves of the draws; spread: standard "
        "deviation of the patterns' exact means over their standard error. Totals: means over layers."
    ),
    "gradient": (
        "halves: of two independent halves of the draws. With h between halves, a faultless proxy would have about "
        "sqrt(2h / (1 + h)). centered: of slopes less their mean over blocks. Totals: means over layers."
    ),
    "stale": (
        "Absolute errors with a share of the activation bits redrawn, and with their density scaled. fresh: mean error "
        "of new calibrations; s.e.: mean standard error of the exact means."
    ),
}


def summarize(cases: Iterable[Case]) -> dict[str, list[dict[str, Any]]]:
    """Returns, per study, a row for each layer and `inter_balance`, and rows over all layers, named `TOTAL`.

    Errors and standard errors are relative. What is None in a case is left out of means, and None where none is left.

    Args:
        cases: Cases of any studies; layers keep the order in which they come.
    """
    by_study: dict[str, list[Any]] = {}
    for case in cases:
        by_study.setdefault(case.study, []).append(case)
    summary = {}
    for study, measured in by_study.items():
        summary[study] = [
            {"layer": layer, "inter_balance": inter_balance, **_SUMMARIES[study](chosen)}
            for layer in (*dict.fromkeys(case.layer for case in measured), TOTAL)
            for inter_balance in (False, True)
            if (chosen := [c for c in measured if c.inter_balance == inter_balance and layer in (c.layer, TOTAL)])
        ]
    return summary


def tables(summary: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Table]:
    """Returns a table of each study in a summary, for `rich`."""
    return [_table(study, rows) for study, rows in summary.items()]


def _errors(cases: Sequence[ErrorCase]) -> dict[str, Any]:
    worst = max(cases, key=lambda case: abs(case.error or 0.0))
    return {
        "mean_error": _mean(abs(case.error) for case in cases if case.error is not None),
        "bias": _mean(case.error for case in cases),
        "worst_error": worst.error,
        "worst_mask_kind": worst.mask_kind,
        "worst_density": worst.density,
        "standard_error": _mean(case.standard_error for case in cases),
    }


def _ranks(cases: Sequence[RankCase]) -> dict[str, Any]:
    return {name: _mean(getattr(case, name) for case in cases) for name in ("correlation", "halves", "spread")}


def _gradients(cases: Sequence[GradientCase]) -> dict[str, Any]:
    names = ("cosine", "halves", "centered", "centered_halves")
    return {name: _mean(getattr(case, name) for case in cases) for name in names}


def _drifts(cases: Sequence[StaleCase]) -> dict[str, Any]:
    drifts = dict.fromkeys((case.drift, case.amount) for case in cases)
    return {
        **{
            f"{drift}_{amount:g}": _mean(
                abs(case.stale_error)
                for case in cases
                if (case.drift, case.amount) == (drift, amount) and case.stale_error is not None
            )
            for drift, amount in drifts
        },
        "fresh_error": _mean(abs(case.fresh_error) for case in cases if case.fresh_error is not None),
        "standard_error": _mean(case.standard_error for case in cases),
    }


_SUMMARIES = {"error": _errors, "rank": _ranks, "gradient": _gradients, "stale": _drifts}
_HEADERS = {
    "mean_error": "mean",
    "worst_error": "worst",
    "worst_mask_kind": "of",
    "worst_density": "density",
    "standard_error": "s.e.",
    "correlation": "spearman",
    "centered_halves": "halves",
    "fresh_error": "fresh",
}


def _table(study: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    numbers = [name for name in rows[0] if name not in ("layer", "inter_balance")]
    headers = [_HEADERS.get(name, name.replace("_", "\n")) for name in numbers]
    table = new_table(_TITLES[study], _CAPTIONS[study], ("layer", "inter_balance"), headers)
    for index, row in enumerate(rows):
        if row["layer"] == TOTAL and rows[index - 1]["layer"] != TOTAL:
            table.add_section()
        balance = "on" if row["inter_balance"] else "off"
        table.add_row(Text(short(row["layer"])), balance, *(_text(study, name, row[name]) for name in numbers))
    return table


def _text(study: str, name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if study in ("error", "stale") and name != "worst_density":
        return f"{100 * value:{'+' if name in ('bias', 'worst_error') else ''}.2f}"
    return f"{value:g}" if name == "worst_density" else f"{value:.1f}" if name == "spread" else f"{value:.3f}"


def _mean(values: Iterable[Ratio]) -> Ratio:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
