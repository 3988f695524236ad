"""The paper's comparison: Phantom-2D and its rivals over the same masks, what each takes, and the ratios."""

from phantom_jax.comparison import validation
from phantom_jax.comparison.cases import LayerCycles, MapPoint, Run
from phantom_jax.comparison.designs import PAPER_RATIOS, PHANTOM, RIVALS, rivals, variants
from phantom_jax.comparison.measure import measure_point, run_design
from phantom_jax.comparison.summary import RATIOS, ablation, ratio_rows, tables

__all__ = [
    "PAPER_RATIOS",
    "PHANTOM",
    "RATIOS",
    "RIVALS",
    "LayerCycles",
    "MapPoint",
    "Run",
    "ablation",
    "measure_point",
    "ratio_rows",
    "rivals",
    "run_design",
    "tables",
    "validation",
    "variants",
]
