"""Checks that the boundary modules share: each names the argument, what came and what was expected."""

import operator
from typing import Any

import numpy as np


def integer(argument: str, value: Any, minimum: int) -> int:
    """Returns `value` as a plain int; NumPy integers are welcome, bools and fractions are not.

    Raises:
        ValueError: `value` is not an integer of at least `minimum`.
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if number >= minimum:
                return number
    wanted = {0: "a non-negative integer", 1: "a positive integer"}[minimum]
    raise ValueError(f"{argument} must be {wanted}, got {value!r}.")


def one_of(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns `value` if it is one of the strings `choices`.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(f"{argument} must be one of {', '.join(choices)}, got {value!r}.")
