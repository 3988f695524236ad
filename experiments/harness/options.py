"""Options of commands, as plain values: checked by name, and given to the dataclass or function that they are for."""

import contextlib
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf

# Options that name what a command reads, alone or in a list.
PATHS = ("workload.path", "workload.inputs", "path", "data.dir", "networks", "inputs")
Made = TypeVar("Made")


def at_home(config: DictConfig) -> None:
    """Puts the user's home in place of `~` where paths of `PATHS` begin with it."""
    for option in PATHS:
        value = OmegaConf.select(config, option)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, option, os.path.expanduser(value))
        for index, path in enumerate(value) if isinstance(value, ListConfig) else ():
            if isinstance(path, str) and path.startswith("~"):
                OmegaConf.update(config, f"{option}.{index}", os.path.expanduser(path))


def plain(config: DictConfig) -> dict[str, Any]:
    """Returns a configuration as plain values.

    Raises:
        ValueError: An option that has no default is not set.
    """
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{' and '.join(missing)} must be set: there is no default.")
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values


def check_names(
    options: Collection[str], required: Sequence[str], optional: Sequence[str] = (), group: str | None = None
) -> None:
    """Checks that a group is one, that all options are known, and that none is missing.

    Args:
        options: The options' names, or the options by name.
        required: Names of options that must be there.
        optional: Names of options that may be there.
        group: Their group; None for those of the command itself.

    Raises:
        ValueError: It is a single value, or an option is unknown or missing.
    """
    if not isinstance(options, Collection) or isinstance(options, str):
        wanted = ", ".join([*required, *optional])
        raise ValueError(f"{group} must be a group of options ({wanted}), got {options!r}.")
    above, owner = (f"{group}.", group) if group else ("", "this command")
    options_of = f"the options of {owner} are {', '.join([*required, *optional])}."
    for name in options:
        if name not in (*required, *optional):
            raise ValueError(f"there is no option {above}{name}; {options_of}")
    for name in required:
        if name not in options:
            raise ValueError(f"option {above}{name} is missing; {options_of}")


def group_of(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a copy of a group of options.

    Raises:
        ValueError: It is a single value.
    """
    if not isinstance(options[name], Mapping):
        raise ValueError(f"{name} must be a group of options, got {options[name]!r}.")
    return dict(options[name])


def make(kind: Callable[..., Made], options: Mapping[str, Any], group: str, **arguments: Any) -> Made:
    """Returns what a dataclass or function makes of the options of a group, whose names are its parameters.

    Args:
        kind: The dataclass or function.
        options: The options by name.
        group: Their group, which messages put before the name of an option.
        arguments: Arguments that are not options.

    Raises:
        ValueError: An option is unknown, missing or not valid.
    """
    parameters = [p for name, p in inspect.signature(kind).parameters.items() if name not in arguments]
    required = [p.name for p in parameters if p.default is p.empty]
    check_names(options, required, [p.name for p in parameters if p.name not in required], group)
    with named({p.name: f"{group}.{p.name}" for p in parameters}):
        return kind(**options, **arguments)


@contextlib.contextmanager
def named(names: Mapping[str, str]) -> Iterator[None]:
    """Puts the names of options in place of those of arguments, where a `ValueError` begins with one.

    Args:
        names: Names of options, by argument.
    """
    try:
        yield
    except ValueError as error:
        head, must, rest = str(error).partition(" must ")
        first = re.match(r"\w+", head)
        if first and not head.startswith(names.get(first[0], first[0])):
            # Several arguments may be named: "sparse.epochs and tune.epochs must ...".
            head = re.sub(r"(?<![\w.])\w+", lambda word: names.get(word[0], word[0]), head)
            error.args = (head + must + rest,)
        raise


def each(options: Mapping[str, Any], key: str, check: Callable[[str, Any], Any], least: int = 1) -> tuple[Any, ...]:
    """Returns the entries of an option that is a list, each once.

    Args:
        options: The options by name.
        key: The name of the list.
        check: Returns an entry, given its name and itself, or raises a `ValueError`.
        least: 1 where the list must not be empty, else 0.

    Raises:
        ValueError: It is not a list, it is empty, or an entry is not valid.
    """
    values = options[key]
    if not isinstance(values, list) or len(values) < least:
        raise ValueError(f"{key} must be a list{' that is not empty' * least}, got {values!r}.")
    return tuple(dict.fromkeys(check(f"{key}[{index}]", value) for index, value in enumerate(values)))
