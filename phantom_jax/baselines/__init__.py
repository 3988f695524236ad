"""Cycle models of other accelerators over the same layers, with the same reports: what Phantom-2D is compared with."""

from phantom_jax.baselines.dense import Dense
from phantom_jax.baselines.design import Design
from phantom_jax.baselines.eyeriss_v2 import EyerissV2
from phantom_jax.baselines.scnn import SCNN
from phantom_jax.baselines.sparten import SparTen

__all__ = ["SCNN", "Dense", "Design", "EyerissV2", "SparTen"]
