"""The top-down selector of a PE with three threads: a block in each bit of a word (SPEC 4.2).

The automata are those of `exact.selector`, `_next_fit` and `_first_fit_of_three`, with their state as bit planes: word
i of the state holds bit i of every block's number. So one bitwise instruction steps as many blocks as a vector register
has bits.
"""

from collections.abc import Callable

from jaxtyping import Array


def sliced_selector(
    selector: str,
) -> tuple[
    Callable[[Array, int], list[Array]],
    Callable[..., tuple[list[Array], Array]],
    Callable[[list[Array]], list[Array]],
]:
    """Returns the selector of a PE, for words of bits of its entries.

    Args:
        selector: The top-down selector.

    Returns:
        `start(zeros, most)`, the state before any entry, with room for at most `most` entries.
        `step(state, x, y, z)`, the state after an entry with these three bits, and a word of where it opened a bin.
        `uncounted(state)`, words of bins that no step has returned, to be counted at the end: out of order, the bin
        that a negative state stands for.
    """
    if selector == "in_order":
        return lambda zeros, most: [~zeros, ~zeros], _sliced_next_fit, lambda state: []
    return lambda zeros, most: [zeros] * (most.bit_length() + 1), _sliced_first_fit, lambda state: state[-1:]


def _sliced_next_fit(state: list[Array], x: Array, y: Array, z: Array) -> tuple[list[Array], Array]:
    """In order: the state is whether fewer than one and fewer than two threads of the open bin are free."""
    none_free, few_free = state
    either, both = x | y, x & y
    one, two, three = either | z, both | (z & either), both & z  # the entry has at least this many bits
    opens = three | (one & none_free) | (two & few_free)
    # An opened bin keeps 3 - count threads, and any other loses count.
    return [three | ((none_free | (one & (few_free | two))) & ~opens), two | ((few_free | one) ^ opens)], opens


def _sliced_first_fit(state: list[Array], x: Array, y: Array, z: Array) -> tuple[list[Array], Array]:
    """Out of order: the state is the number of open bins with one free thread, or -1 for a single one that has two.

    The number is in two's complement, its sign last. An entry of one bit lowers it by 1, one of two bits raises it by
    1; but from -1, one bit leads to +1, which is down by 1 and up by 3. A bin that a single bit opens is counted when
    it is left that way, or by the sign in the end; one that two bits complete, when they do.
    """
    *digits, sign = state
    differ = x ^ y
    some = differ | (y ^ z)  # one or two bits
    one = some & (differ ^ z)
    jumps, down = one & sign, one & ~sign
    opens = (x & y) | (z & differ) | jumps
    after = [digits[0] ^ (some ^ jumps)]
    carry = some & (digits[0] ^ down)
    for digit in digits[1:]:
        after.append(digit ^ carry)
        carry &= digit ^ down
    return [*after, sign ^ carry], opens
