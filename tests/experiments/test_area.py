import dataclasses

import pytest

from experiments.explore.area import area
from phantom_jax import Phantom2D


def test_parts_of_the_default() -> None:
    cores, slots, lookahead, pes = 28, 9, 27, 3
    assert area(Phantom2D()) == {
        "multipliers": cores * slots * 8 * 8,
        "masks": cores * slots * (lookahead + 1),
        "operands": cores * slots * 2 * 2 * 8,
        "sums": cores * (lookahead + slots) * 24,
        "selector": cores * pes * lookahead * 2 * 2,  # a count up to 3 has two bits
    }


@pytest.mark.parametrize("change", [{"rows": 8}, {"cols": 5}, {"pes": 4}, {"threads": 4}, {"lookahead": 28}])
def test_more_of_anything_costs_more(change: dict[str, int]) -> None:
    before, after = area(Phantom2D()), area(dataclasses.replace(Phantom2D(), **change))
    assert all(after[part] >= before[part] for part in before)
    assert sum(after.values()) > sum(before.values())


def test_a_selector_in_order_costs_less() -> None:
    assert area(Phantom2D(selector="in_order"))["selector"] == 28 * 3 * 4


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="arch must be a Phantom2D, got 3"):
        area(3)  # pyright: ignore[reportArgumentType]
