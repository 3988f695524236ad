"""From any JAX function to layers: the masks of the convolutions and dense products that it runs."""

from phantom_jax.tracing.inputs import read_inputs
from phantom_jax.tracing.interpreter import trace
from phantom_jax.tracing.traced import Skipped, Traced

__all__ = ["Skipped", "Traced", "read_inputs", "trace"]
