"""Performance model of Phantom-2D, a sparse CNN accelerator, in JAX: exact cycle counts, and a differentiable proxy."""

from phantom_jax import baselines, workloads
from phantom_jax.arch import Phantom2D
from phantom_jax.exact import core_cycles, simulate
from phantom_jax.layer import Layer
from phantom_jax.proxy import Calibration, calibrate, expected_cycles, expected_cycles_from
from phantom_jax.report import LayerReport, Report
from phantom_jax.tracing import Skipped, Traced, trace
from phantom_jax.tracing.onnx import from_onnx

__version__ = "0.1.0"

__all__ = [
    "Calibration",
    "Layer",
    "LayerReport",
    "Phantom2D",
    "Report",
    "Skipped",
    "Traced",
    "baselines",
    "calibrate",
    "core_cycles",
    "expected_cycles",
    "expected_cycles_from",
    "from_onnx",
    "simulate",
    "trace",
    "workloads",
]
