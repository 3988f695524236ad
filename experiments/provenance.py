"""What made a result: versions of the packages and of this repository."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import phantom_jax

_PACKAGES = ("jax", "jaxlib", "numpy", "hydra-core", "omegaconf")
_ROOT = pathlib.Path(__file__).resolve().parent.parent


def collect() -> dict[str, Any]:
    """Returns versions of Python and packages, and the git revision with whether files differ from it, if any."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {"python": platform.python_version(), "phantom_jax": phantom_jax.__version__, **versions},
        "git_revision": _git("rev-parse", "HEAD"),
        "git_modified": None
        if (status := _git("status", "--porcelain", "--untracked-files=no")) is None
        else status != "",
    }


def _git(*arguments: str) -> str | None:
    """Returns what git says of this repository, None without git or outside of a repository of its own."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
