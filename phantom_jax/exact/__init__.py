"""The exact model: layers in, cycles and cycle stacks out (SPEC 3 to 6)."""

from phantom_jax.exact.blocks import Blocks, rotate
from phantom_jax.exact.cache import enable_cache
from phantom_jax.exact.lowering import Streams, streams
from phantom_jax.exact.mesh import choose_row_axis, cut_segments, place_next
from phantom_jax.exact.selector import Automaton, automaton, issue_cycles, selector_bins
from phantom_jax.exact.simulate import core_cycles, job_counter, simulate
from phantom_jax.exact.tiles import batches, compiled, overlapped, run_tiles

__all__ = [
    "Automaton",
    "Blocks",
    "Streams",
    "automaton",
    "batches",
    "choose_row_axis",
    "compiled",
    "core_cycles",
    "cut_segments",
    "enable_cache",
    "issue_cycles",
    "job_counter",
    "overlapped",
    "place_next",
    "rotate",
    "run_tiles",
    "selector_bins",
    "simulate",
    "streams",
]
