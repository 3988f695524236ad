"""The persistent compilation cache: kernels are compiled once per machine rather than once per process."""

import functools
import hashlib
import os
import pathlib
import platform

import jax

ENVIRONMENT = "PHANTOM_JAX_CACHE"
_WORTH_KEEPING = 0.02  # seconds of compilation; JAX's own threshold of 1 would miss most of the kernels


@functools.cache
def enable_cache() -> None:
    """Points JAX's persistent compilation cache at the user's cache directory, unless it points somewhere already.

    The environment variable `PHANTOM_JAX_CACHE` names another directory, or is `off`. JAX has one cache per process,
    so other functions that the process compiles are kept there too. Without a cache directory there is no cache.

    Raises:
        ValueError: `PHANTOM_JAX_CACHE` does not name a directory that can be written.
    """
    wanted = os.environ.get(ENVIRONMENT, "")
    if wanted == "off" or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        directory = (pathlib.Path(wanted).expanduser() if wanted else _user_cache() / "phantom_jax") / _machine()
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        directory = None
    if directory is not None and os.access(directory, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)
    elif wanted:
        raise ValueError(f"{ENVIRONMENT} must be a directory that can be written, or off; got {wanted}.")


def _user_cache() -> pathlib.Path:
    if platform.system() == "Darwin":
        return pathlib.Path.home() / "Library" / "Caches"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")


def _machine() -> str:
    """Returns a name for this kind of processor: compiled code may not run on another that shares the directory."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join([platform.machine(), *features]).encode()).hexdigest()[:16]
