"""What an accelerator's parts cost, to first order: bits and adders counted from its parameters."""

from phantom_jax.arch import Phantom2D, check_arch

_OPERAND, _SUM = 8, 24  # bits of a weight or an activation, and of a partial sum


def area(arch: Phantom2D) -> dict[str, int]:
    """Returns the area of an accelerator by part, in full adders; a bit of storage counts as one adder.

    This model's choice throughout, for comparing meshes with each other: an estimate of the first order, without wires,
    control, global buffers or memories. Both balances are control, so they cost nothing here. The paper's own figures
    could not be consulted.

    - `multipliers`: 8 x 8 adders for each.
    - `masks`: a core's lookahead masks of activations, one bit per slot each, and its weights' mask.
    - `operands`: two of 8 bits per multiplier, for the cycle and the next.
    - `sums`: a partial sum of 24 bits for each mask that a core looks ahead, since its threads may work at any of them,
      and an adder of as many bits per thread.
    - `selector`: per PE, a counter of what its threads still take (in order), or of what each mask's bin still takes
      (out of order), each with its comparison.

    Args:
        arch: The accelerator.

    Raises:
        ValueError: `arch` is not a `Phantom2D`.
    """
    check_arch(arch)
    counter = arch.threads.bit_length()
    bins = arch.lookahead if arch.selector == "out_of_order" else 1
    of_core = {
        "multipliers": arch.slots * _OPERAND**2,
        "masks": arch.slots * (arch.lookahead + 1),
        "operands": arch.slots * 4 * _OPERAND,
        "sums": (arch.lookahead + arch.slots) * _SUM,
        "selector": arch.pes * bins * 2 * counter,
    }
    return {part: arch.cores * adders for part, adders in of_core.items()}
