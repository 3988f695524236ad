"""Performance model of Phantom-2D, a sparse CNN accelerator, in JAX: exact cycle counts from binary masks."""

from phantom_jax import workloads
from phantom_jax.arch import Phantom2D
from phantom_jax.layer import Layer
from phantom_jax.report import LayerReport, Report
from phantom_jax.simulate import core_cycles, simulate

__version__ = "0.1.0"

__all__ = ["Layer", "LayerReport", "Phantom2D", "Report", "core_cycles", "simulate", "workloads"]
