"""Checks that the boundary modules share: each names the argument, what came and what was expected."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

LARGEST = 2**31 - 1
_LARGEST_SEED = 2**64 - 1


def integer(argument: str, value: Any, minimum: int, maximum: int = LARGEST) -> int:
    """Returns `value` as a plain int; NumPy integers are welcome, bools and fractions are not.

    Raises:
        ValueError: `value` is not an integer from `minimum` to `maximum`.
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if minimum <= number <= maximum:
                return number
            if number > maximum:
                raise ValueError(f"{argument} must be at most {maximum}, got {value!r}.")
    wanted = {0: "a non-negative integer", 1: "a positive integer"}[minimum]
    raise ValueError(f"{argument} must be {wanted}, got {value!r}.")


def boolean(argument: str, value: Any) -> bool:
    """Returns `value` as a plain bool; NumPy bools are welcome.

    Raises:
        ValueError: `value` is not true or false.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{argument} must be true or false, got {value!r}.")
    return bool(value)


def one_of(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns `value` if it is one of the strings `choices`.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(f"{argument} must be one of {', '.join(choices)}, got {value!r}.")


def number(argument: str, value: Any, wanted: str, is_valid: Callable[[float], bool]) -> float:
    """Returns `value` as a float if it is a number that `is_valid` accepts; `wanted` says in words which those are.

    Raises:
        ValueError: It is not.
    """
    if (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and is_valid(float(value))
    ):
        return float(value)
    raise ValueError(f"{argument} must be {wanted}, got {value!r}.")


def check_seed(seed: Any, argument: str = "seed") -> int:
    """Returns a seed.

    Raises:
        ValueError: It is not an integer from 0 to 2^64 - 1.
    """
    return integer(argument, seed, minimum=0, maximum=_LARGEST_SEED)
