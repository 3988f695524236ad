"""Test set-up: checks the shapes and types that internal functions are annotated with, and steadies hypothesis."""

import collections
import itertools
import os
import pathlib
import shutil
import tempfile

import hypothesis
import pytest
from jaxtyping import install_import_hook

# All processes of the tests share a compilation cache, made by the one that starts their workers if none is given.
_MADE_CACHE = "PHANTOM_JAX_TEST_CACHE" not in os.environ
if _MADE_CACHE:
    os.environ["PHANTOM_JAX_TEST_CACHE"] = tempfile.mkdtemp()
os.environ["PHANTOM_JAX_CACHE"] = os.environ["PHANTOM_JAX_TEST_CACHE"]


def pytest_configure(config: pytest.Config) -> None:
    """Draws fewer examples where the long tests are left out."""
    if config.option.markexpr == "not slow":
        hypothesis.settings.load_profile("quick")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the compilation cache once all workers are done."""
    if _MADE_CACHE and not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["PHANTOM_JAX_TEST_CACHE"], ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints which files take longest, so that the next slow test is seen."""
    seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.split("::")[0]] += report.duration
    if sum(seconds.values()) > 10:
        terminalreporter.section("slowest files")
        for file, taken in sorted(seconds.items(), key=lambda item: -item[1])[:10]:
            terminalreporter.write_line(f"{taken:7.1f} s  {file}")


# In boundary modules bad input must end in their own ValueError and not in beartype's.
_ROOT = pathlib.Path(__file__).parent.parent
_BOUNDARY = ("phantom_jax.exact.simulate", "phantom_jax.proxy.api")
_INNER = [
    ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for package in ("exact", "proxy")
    for path in (_ROOT / "phantom_jax" / package).rglob("[!_]*.py")
]
install_import_hook([name for name in _INNER if name not in _BOUNDARY], "beartype.beartype")

hypothesis.settings.register_profile(
    "default",
    max_examples=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("explore", parent=hypothesis.settings.get_profile("default"), derandomize=False)
hypothesis.settings.register_profile("quick", parent=hypothesis.settings.get_profile("default"), max_examples=20)
hypothesis.settings.load_profile("default")
