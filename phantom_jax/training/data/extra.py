"""Packages of the extra `data`, imported where they are needed."""

import importlib
import types


def import_extra(module: str, package: str) -> types.ModuleType:
    """Returns a module of a package of the extra `data`.

    Args:
        module: The module's full name.
        package: The package's name on the index.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"This needs {package}: pip install phantom-jax[data] ({error}).") from error
