"""Sparse weights: masked networks, methods that choose which weights stay, and expected cycles as a penalty."""

from phantom_jax.sparsity.activity import activation_prices, priced_activity
from phantom_jax.sparsity.additive import additive_adam
from phantom_jax.sparsity.budget import dense_cycles, exact_cycles, keep_cycles, keep_density, least_cycles
from phantom_jax.sparsity.functional import LayerWeights, draw_masks, first_logits
from phantom_jax.sparsity.masked import Keep, Mask, Masked
from phantom_jax.sparsity.methods import (
    NM,
    CycleAware,
    GlobalMagnitude,
    MacAwareMagnitude,
    Method,
    UniformMagnitude,
    keep_best,
    macs_per_weight,
)
from phantom_jax.sparsity.named import layers_by_name
from phantom_jax.sparsity.penalty import Cost, CyclePenaltyState, cycle_penalty

__all__ = [
    "NM",
    "Cost",
    "CycleAware",
    "CyclePenaltyState",
    "GlobalMagnitude",
    "Keep",
    "LayerWeights",
    "MacAwareMagnitude",
    "Mask",
    "Masked",
    "Method",
    "UniformMagnitude",
    "activation_prices",
    "additive_adam",
    "cycle_penalty",
    "dense_cycles",
    "draw_masks",
    "exact_cycles",
    "first_logits",
    "keep_best",
    "keep_cycles",
    "keep_density",
    "layers_by_name",
    "least_cycles",
    "macs_per_weight",
    "priced_activity",
]
