"""The differentiable proxy: the model of `simulate` on probabilities (SPEC 8)."""

from phantom_jax.proxy.api import Calibration, calibrate, expected_cycles, expected_cycles_from

__all__ = ["Calibration", "calibrate", "expected_cycles", "expected_cycles_from"]
