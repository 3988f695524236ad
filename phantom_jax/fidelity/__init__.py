"""How faithful the proxy is to the exact model: error, ranks, gradients, stale calibrations (SPEC 8)."""

from phantom_jax.fidelity.cases import STUDIES, Case, ErrorCase, GradientCase, RankCase, StaleCase
from phantom_jax.fidelity.draws import KINDS
from phantom_jax.fidelity.studies import measure_error, measure_gradient, measure_rank, measure_stale
from phantom_jax.fidelity.summary import TOTAL, summarize, tables

__all__ = [
    "KINDS",
    "STUDIES",
    "TOTAL",
    "Case",
    "ErrorCase",
    "GradientCase",
    "RankCase",
    "StaleCase",
    "measure_error",
    "measure_gradient",
    "measure_rank",
    "measure_stale",
    "summarize",
    "tables",
]
