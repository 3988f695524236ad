"""What made a result: settings, files that were read, versions of the packages and of this repository."""

import hashlib
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

import phantom_jax
from experiments.harness.options import PATHS

_PACKAGES = ("jax", "jaxlib", "numpy", "hydra-core", "omegaconf")
_ROOT = pathlib.Path(__file__).resolve().parents[2]


def collect(config: DictConfig) -> dict[str, Any]:
    """Returns what made a run's results, as plain values.

    Args:
        config: The whole configuration of the run.

    Returns:
        Its settings; a digest of each file or folder that they name; and `versions`.
    """
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {"settings": settings, "inputs": inputs(config), **versions()}


def versions() -> dict[str, Any]:
    """Returns versions of Python and packages, and the git revision with whether files differ from it, if any."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {"python": platform.python_version(), "phantom_jax": phantom_jax.__version__, **packages},
        "git_revision": _git("rev-parse", "HEAD"),
        "git_modified": None
        if (status := _git("status", "--porcelain", "--untracked-files=no")) is None
        else status != "",
    }


def inputs(config: DictConfig) -> dict[str, str]:
    """Returns a digest of each file or folder that a configuration names, by the option's name."""
    found = {}
    for option in PATHS:
        value = OmegaConf.select(config, option)
        if isinstance(value, str):
            found[f"{option}.sha256"] = _digest(pathlib.Path(value))
        for path in value if isinstance(value, ListConfig) else ():
            if isinstance(path, str) and pathlib.Path(path).is_file():
                found[f"{option}.{path}.sha256"] = _digest(pathlib.Path(path))
    return found


def _digest(path: pathlib.Path) -> str:
    """Returns a digest of a file, or of all files in a folder with their names."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)}\n{_digest(file)}\n".encode())
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    """Returns what git says of this repository, None without git or outside of a repository of its own."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
