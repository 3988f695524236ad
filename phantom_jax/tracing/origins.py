"""Where values come from, and what layers are called."""

import dataclasses
import functools
import os
import sysconfig
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from phantom_jax.tracing.images import Images
from phantom_jax.tracing.traced import KeyPath

_PARAMETER_NAMES = ("kernel", "weight", "weights", "w")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a value is derived from. A value that holds for all inputs has none."""

    path: KeyPath | None  # of one array among the inputs; None if several mix, or a contraction made the value
    floating: bool  # False for integers and booleans, and what is derived from them: a mask as a rule


MIXED = Origin(None, floating=True)

# What a value derives from, beside arguments that hold activations, which are given by their positions.
PARAMETERS, INDICES = "parameters", "indices"


class Operand(NamedTuple):
    """A value, and where it comes from."""

    array: Any
    origin: Origin | None = None
    kinds: frozenset[str | int] = frozenset()  # empty for what literals alone make
    images: Images | None = None

    @property
    def is_active(self) -> bool:
        """Whether it derives from activations."""
        return any(isinstance(kind, int) for kind in self.kinds)

    @property
    def is_weights(self) -> bool:
        """Whether it derives from parameters or constants alone, and is not made of indices by the function itself."""
        return not self.is_active and (PARAMETERS in self.kinds or INDICES not in self.kinds)


def union(operands: Sequence[Operand]) -> frozenset[str | int]:
    """Returns what several values derive from."""
    return frozenset[str | int]().union(*(operand.kinds for operand in operands))


def derived(avals: Sequence[Any], origins: Sequence[Origin | None], result: Any) -> Origin | None:
    """Returns the origin of what an operation makes of its operands.

    Operands of another number of elements than the result do not count (a scale that is broadcast, a slice). Of the
    others, floating ones go before the rest, so that a kernel times a mask is the kernel's.

    Args:
        avals: Abstract values of the operands.
        origins: Their origins.
        result: The abstract value of the result.
    """
    same = {origin for aval, origin in zip(avals, origins, strict=True) if origin and _size(aval) == _size(result)}
    found = {origin for origin in same if origin.floating} or same
    if not found:
        return None
    origin = found.pop() if len(found) == 1 else dataclasses.replace(MIXED, floating=any(o.floating for o in found))
    return dataclasses.replace(origin, floating=origin.floating and is_floating(result))


def is_floating(value: Any) -> bool:
    """Whether an array, or abstract value, is of a floating type."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.inexact)


def name_of(path: KeyPath | None, scopes: Sequence[str], source_info: Any) -> str | None:
    """Returns a name: of the weights' path, else of the `jax.named_scope`, else of the line of code; None without any.

    Args:
        path: The key path of the weights in (fn, *args).
        scopes: The scopes that the equation is in, outermost first.
        source_info: Of the equation.
    """
    return _path_name(path or ()) or "/".join(scopes) or _call_site(source_info.traceback)


def scopes_of(source_info: Any) -> tuple[str, ...]:
    """Returns the names of the scopes that an equation is in, without transformations."""
    return tuple(entry.name for entry in source_info.name_stack.stack if type(entry).__name__ == "Scope")


def _size(aval: Any) -> int:
    return getattr(aval, "size", 1)


def _path_name(path: KeyPath) -> str | None:
    """Returns the path within an argument in words, if it has any: `features.0` for `.features[0].kernel.value`."""
    keys = [jax.tree_util.keystr((key,), simple=True) for key in path[1:]]
    for endings in (("value",), _PARAMETER_NAMES):
        if keys and keys[-1] in endings and _has_words(keys[:-1]):
            del keys[-1]
    return ".".join(keys) if _has_words(keys) else None


def _has_words(keys: Sequence[str]) -> bool:
    return not all(key.isdecimal() for key in keys)


def _call_site(traceback: Any) -> str | None:
    """Returns `function:line` of the innermost frame that is not of an installed package."""
    for frame in traceback.frames if traceback else ():
        if not frame.file_name.startswith(("<", *_installed())):
            return f"{frame.function_name.rpartition('<locals>.')[2]}:{frame.line_num}"
    return None


@functools.cache
def _installed() -> tuple[str, ...]:
    paths: Iterable[str] = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple(os.path.join(path, "") for path in {*paths, *map(os.path.dirname, (jax.__file__, __file__))})
