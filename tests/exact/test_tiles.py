"""Threads, devices and the compilation cache."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from phantom_jax.exact.cache import ENVIRONMENT
from phantom_jax.exact.tiles import overlapped

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import json
import os
import jax
import numpy as np
from phantom_jax import Layer, Phantom2D, simulate
rng = np.random.default_rng(0)
mask = lambda *shape: rng.random(shape) < rng.random(shape[-1])
layers = [
    Layer.conv(mask(3, 3, 40, 150), mask(2, 30, 30, 40)),
    Layer.dense(mask(900, 600), mask(2, 900)),
    Layer.conv(mask(1, 1, 90, 12), mask(2, 6, 6, 90)),
    Layer.conv(mask(3, 3, 1, 40), mask(2, 30, 30, 40), feature_group_count=40),
]
layers = layers[: int(os.environ["LAYERS"])]
archs = [Phantom2D(), Phantom2D(selector="in_order", lookahead=33), Phantom2D(pes=2, threads=4, lookahead=5)]
archs = archs[: int(os.environ["ARCHS"])]
print(json.dumps([jax.device_count(), [simulate(layers, arch).to_dict() for arch in archs]]))
"""


TINY = """
import numpy as np
from phantom_jax import Layer, Phantom2D, simulate
simulate(Layer.dense(np.ones((3, 2)), np.ones((1, 3))), Phantom2D(pes=1, threads=1, lookahead=2))
print("[]")
"""  # compiles one small kernel


def run(environment: dict[str, str], archs: int = 1, layers: int = 4, program: str = PROGRAM) -> list:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"ARCHS": str(archs), "LAYERS": str(layers)} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_eight_devices_give_the_same_integers() -> None:
    one, report = run({"XLA_FLAGS": ""}, archs=3)
    eight, same = run({"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, archs=3)
    assert (one, eight) == (1, 8)
    assert report == same


@pytest.mark.slow
def test_compiled_kernels_are_kept_for_the_next_process(tmp_path: pathlib.Path) -> None:
    first = run({ENVIRONMENT: str(tmp_path / "cache"), "XDG_CACHE_HOME": str(tmp_path / "unused")}, layers=3)
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*-cache"))
    assert any("count_positions" in name for name in kept)
    assert any("count_chunks" in name for name in kept)
    assert any("place_tile" in name for name in kept)
    assert first == run({ENVIRONMENT: str(tmp_path / "cache")}, layers=3)
    assert kept == sorted(path.name for path in (tmp_path / "cache").rglob("*-cache"))  # nothing compiled anew
    assert not (tmp_path / "unused").exists()


@pytest.mark.slow
def test_the_cache_can_be_off_and_elsewhere(tmp_path: pathlib.Path) -> None:
    run({ENVIRONMENT: "off", "XDG_CACHE_HOME": str(tmp_path / "user")}, program=TINY)
    assert not (tmp_path / "user").exists()
    run({ENVIRONMENT: "", "XDG_CACHE_HOME": str(tmp_path / "user")}, program=TINY)
    assert any((tmp_path / "user" / "phantom_jax").rglob("*-cache"))
    # A cache directory that JAX has been given already stays.
    run(
        {
            ENVIRONMENT: "",
            "XDG_CACHE_HOME": str(tmp_path / "other"),
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"),
        },
        program=TINY,
    )
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_cache_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    program = "from phantom_jax.exact.cache import enable_cache; enable_cache()"
    command = [sys.executable, "-c", program]

    def run_with(**environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
        return subprocess.run(command, env=kept | environment, cwd=ROOT, capture_output=True, text=True)

    refused = run_with(**{ENVIRONMENT: str(tmp_path / "file")})
    assert "PHANTOM_JAX_CACHE must be a directory that can be written, or off; got " in refused.stderr
    without = run_with(XDG_CACHE_HOME=str(tmp_path / "file"))  # the default is done without
    assert (without.returncode, without.stderr) == (0, "")


def test_overlapped_keeps_the_order_and_few_items() -> None:
    taken, gate = [], threading.Event()

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    def work(item: int) -> int:
        if item == 0:
            gate.wait(1)  # others are done first
        return item * item

    results = overlapped(work, items())
    for expected in range(20):
        assert next(results) == expected * expected
        assert len(taken) <= expected + 3
        gate.set()


def test_overlapped_raises_what_work_and_items_raise() -> None:
    def items():
        yield 1
        raise KeyError("items")

    with pytest.raises(KeyError, match="items"):
        list(overlapped(lambda item: item, items()))
    with pytest.raises(ZeroDivisionError):
        list(overlapped(lambda item: 1 // item, [1, 0, 1]))
