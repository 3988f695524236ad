"""The exact model: layers in, cycles and cycle stacks out (SPEC 3 to 6)."""

from phantom_jax.exact.cache import ENVIRONMENT, enable_cache
from phantom_jax.exact.lowering import Streams, streams
from phantom_jax.exact.mesh import choose_row_axis, cut_segments, place_next
from phantom_jax.exact.selector import Automaton, automaton, selector_bins
from phantom_jax.exact.simulate import core_cycles, job_counter, simulate
from phantom_jax.exact.tiles import batches, compiled, overlapped, run_tiles

__all__ = [
    "ENVIRONMENT",
    "Automaton",
    "Streams",
    "automaton",
    "batches",
    "choose_row_axis",
    "compiled",
    "core_cycles",
    "cut_segments",
    "enable_cache",
    "job_counter",
    "overlapped",
    "place_next",
    "run_tiles",
    "selector_bins",
    "simulate",
    "streams",
]
