"""The benchmark runs and says what it should, on small pictures; its times are nobody's business here."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "benchmark.py"
YARDSTICK = (
    '#include <stdio.h>\nint main(int n, char **v) { printf("layer\\n%s.5\\n", n > 1 ? "0" : "-"); return 0; }\n'
)


def benchmark(folder: pathlib.Path, *options: str) -> tuple[dict[str, Any], str]:
    """Returns the results of the smallest size and what is printed."""
    source = folder / "yardstick.c"
    source.write_text(YARDSTICK)
    command = [sys.executable, SCRIPT, "--repeats", "1", "--size", "32", "--output", folder, "--yardstick", source]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(folder)
    return json.loads((folder / "results.json").read_text()), done.stdout


def test_networks(tmp_path: pathlib.Path) -> None:
    results, shown = benchmark(tmp_path, "--only", "networks")
    for name in ("vgg16 convolutions", "vgg16", "mobilenet_v1", "resnet50"):
        row = results["networks"][name]
        assert row["yardstick_seconds"] == 0.5
        assert row["of_yardstick"] == pytest.approx(row["seconds"] / 0.5)
        assert name in shown
    assert "layers" not in results


@pytest.mark.slow
def test_everything(tmp_path: pathlib.Path) -> None:
    results, _ = benchmark(tmp_path)
    assert len(results["networks"]) == 4
    assert len(results["layers"]["mobilenet_v1"]) == 28
    assert results["start"]["empty cache"]["compilations"] > results["start"]["filled cache"]["compilations"]
    assert set(results["images"]) == {"1", "2", "4", "8"}
    assert set(results["devices"]) == {"1", "2", "4", "8"}
    assert 0 < results["patterns"]["ratio"] < 10
    assert len(results["penalty"]) == 3
    assert results["penalty"]["training step"]["of_step"] == 1
    assert 0 < results["proxy"]["seconds"] < results["proxy"]["first_seconds"]
    assert len(results["baselines"]["designs"]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--yardstick", "nowhere.c"], "--yardstick must be a C file, got nowhere.c"),
        (["--only", "nothing", "start"], "--only must name steps of networks, layers, architectures, "),
    ],
)
def test_bad_options(options: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
