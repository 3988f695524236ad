"""From any JAX function to layers: the masks of the convolutions and dense products that it runs."""

from phantom_jax.trace.inputs import read_inputs
from phantom_jax.trace.interpreter import trace
from phantom_jax.trace.traced import Skipped, Traced

__all__ = ["Skipped", "Traced", "read_inputs", "trace"]
