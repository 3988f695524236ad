"""Sparse weights: masked networks, methods that choose which weights stay, and expected cycles as a penalty."""

from collections.abc import Mapping

from phantom_jax.sparsity.activity import activation_prices, priced_activity
from phantom_jax.sparsity.additive import additive_adam
from phantom_jax.sparsity.budget import dense_cycles, exact_cycles, keep_cycles, keep_density
from phantom_jax.sparsity.masked import Keep, Mask, Masked
from phantom_jax.sparsity.methods import (
    NM,
    CycleAware,
    GlobalMagnitude,
    MacAwareMagnitude,
    MacPenalty,
    Method,
    NoActivations,
    NoMesh,
    Stale,
    UniformMagnitude,
    keep_best,
    macs_per_weight,
)
from phantom_jax.sparsity.named import layers_by_name
from phantom_jax.sparsity.penalty import CyclePenaltyState, cycle_penalty

METHODS: Mapping[str, type[Method]] = {
    "global_magnitude": GlobalMagnitude,
    "uniform_magnitude": UniformMagnitude,
    "mac_aware_magnitude": MacAwareMagnitude,
    "n_m": NM,
    "mac_penalty": MacPenalty,
    "no_mesh": NoMesh,
    "no_activations": NoActivations,
    "stale": Stale,
    "cycle_aware": CycleAware,
}

__all__ = [
    "METHODS",
    "NM",
    "CycleAware",
    "CyclePenaltyState",
    "GlobalMagnitude",
    "Keep",
    "MacAwareMagnitude",
    "MacPenalty",
    "Mask",
    "Masked",
    "Method",
    "NoActivations",
    "NoMesh",
    "Stale",
    "UniformMagnitude",
    "activation_prices",
    "additive_adam",
    "cycle_penalty",
    "dense_cycles",
    "exact_cycles",
    "keep_best",
    "keep_cycles",
    "keep_density",
    "layers_by_name",
    "macs_per_weight",
    "priced_activity",
]
