"""The fidelity command as its users meet it: from the command line."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.fidelity import draws, studies
from experiments.fidelity import options as fidelity_cases
from experiments.fidelity.cases import STUDIES
from experiments.harness import command
from phantom_jax import Phantom2D
from tests.experiments import commands

ROOT = pathlib.Path(__file__).parents[2]
REAL_MASKS = ROOT.parent / "shared" / "data" / "mobilenet_v1_050_128_masks.npz"


SMALL = (
    "layers=[]",
    "path=masks.npz",
    "densities=[0.5,1]",
    "draws=2",
    "patterns=3",
    "blocks=4",
    "redrawn=[0.5]",
    "scaled=[0.8]",
    "hydra.run.dir=out",
)


def test_measures_prints_writes_and_resumes_where_it_was_interrupted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    masks = {
        "[x]_weights": np.ones((3, 3, 4, 9)),
        "[x]_activations": np.random.default_rng(0).random((6, 6, 4)) < 0.5,
        "other": np.ones(1),
    }
    np.savez(tmp_path / "masks.npz", **masks)  # pyright: ignore[reportArgumentType]
    done = commands.run_here("fidelity", *SMALL)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "out"
    assert done.stdout.splitlines()[-1] == str(directory)
    for line in (
        "Note: masks.npz: ignored 1",
        "masks/[x]",
        "Error of the proxy",
        "Ranks of",
        "Cosines of",
        "Error of a calibration",
    ):
        assert line in done.stdout
    names = ("error", "gradient", "rank", "stale_redrawn", "stale_scaled")
    assert {path.name for path in directory.iterdir() if path.suffix != ".log"} == {
        *(".hydra", ".lock", "cases.jsonl", "log.jsonl", "results.csv", "results.json"),
        *(f"{name}.{kind}" for name in names for kind in ("png", "svg")),
    }

    results = json.loads((directory / "results.json").read_text())
    cases = results["cases"]
    studies_of = [case["study"] for case in cases]
    # 2 balances x (2 kinds x 2 densities, one, one, 2 drifts)
    assert [studies_of.count(name) for name in STUDIES] == [8, 2, 2, 4]
    assert results["schema_version"] == 1
    assert results["settings"]["densities"] == [0.5, 1]
    assert results["architecture"]["rows"] == 7
    assert results["workload"]["path"] == "masks.npz"
    assert set(results["summary"]) == set(STUDIES)
    logged = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    tables = {record["table"]: record["rows"] for record in logged if "table" in record}
    assert tables == results["summary"]
    (totals,) = (record["summary"] for record in logged if "summary" in record)
    assert totals["rank/inter_balance/spread"] == results["summary"]["rank"][-1]["spread"]
    assert totals["error/no_inter_balance/bias"] == results["summary"]["error"][-2]["bias"]
    with (directory / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["proxy"]) for row in rows] == [case["proxy"] for case in cases[:8]]

    # Of the last two cases one is lost and one half-written; what is kept is known by a change of its own.
    kept = directory / "cases.jsonl"
    lines = kept.read_text().splitlines()
    assert len(lines) == 1 + len(cases)
    marked = json.loads(lines[1]) | {"proxy": -1.0}
    kept.write_text("\n".join([lines[0], json.dumps(marked), *lines[2:-2], lines[-1][:50]]))
    again = commands.run_here("fidelity", *SMALL)
    assert again.returncode == 0, again.stderr
    assert json.loads((directory / "results.json").read_text())["cases"] == [marked, *cases[1:]]
    assert kept.read_text().splitlines() == [lines[0], json.dumps(marked), *lines[2:]]

    other = commands.run_here("fidelity", *SMALL, "draws=3", "arch.rows=5", "mask_kinds=[iid]")
    assert other.returncode == 1
    assert "cases that were measured with other settings: arch.rows 7, now 5; draws 2, now 3. Set" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["draws=1"], "draws must be an integer of at least 2, got 1."),
        (["arch.rows=0"], "rows must be a positive integer, got 0."),
        (["+foo=1"], "there is no option foo; the options of this command are arch, tracking, studies"),
    ],
)
def test_mistakes_end_in_a_message(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = commands.run_here("fidelity", *overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def composed() -> dict:
    """Returns the options as the command line has them without overrides."""
    with initialize_config_dir(version_base="1.3", config_dir=command.CONFIG_PATH):
        options = OmegaConf.to_container(compose("fidelity"), throw_on_missing=True)
    assert isinstance(options, dict)
    return {str(name): value for name, value in options.items()}


OPTIONS = composed()


def test_drawn_layers_have_activations_of_their_kind() -> None:
    settings = fidelity_cases.read_settings(OPTIONS | {"layers": ["mobilenet_v1/dw3", "vgg16/conv1_1"], "images": 2})
    layers, read = fidelity_cases.load_layers(settings)
    assert list(layers) == ["mobilenet_v1/dw3", "vgg16/conv1_1"]
    assert read is None
    iid, channel = (layers["mobilenet_v1/dw3"][mask_kind] for mask_kind in draws.KINDS)
    assert iid.name == channel.name == "mobilenet_v1/dw3"
    assert iid.activations.shape == channel.activations.shape == (2, 16, 16, 128)
    spread = [layer.activations.mean((0, 1, 2)).std() for layer in (iid, channel)]
    assert spread[0] < 0.05 < 0.2 < spread[1]


def test_real_masks_are_read_with_their_activations() -> None:
    if not REAL_MASKS.exists():
        pytest.skip("the file of real masks is not here")
    settings = fidelity_cases.read_settings(OPTIONS | {"layers": [], "path": str(REAL_MASKS)})
    layers, read = fidelity_cases.load_layers(settings)
    assert len(layers) == 8
    assert read is not None
    layer = layers["masks/L07"]["channel"]
    assert 0.5 < layer.activations.mean() < 0.9
    case = studies.measure_error(
        layer, Phantom2D(inter_balance=False), mask_kind="channel", density=0.5, draws=20, seed=0
    )
    assert case.error == pytest.approx(0, abs=0.03)


def test_default_settings_are_valid() -> None:
    settings = fidelity_cases.read_settings(OPTIONS)
    assert settings.studies == tuple(STUDIES)
    assert len(settings.layers) >= 8


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("studies", ["error", "ranks"], r"studies\[1\] must be one of error, rank, gradient, stale, got 'ranks'"),
        ("studies", "error", r"studies must be a list that is not empty, got 'error'"),
        ("densities", [], r"densities must be a list that is not empty, got \[\]"),
        ("densities", [0.5, 0], r"densities\[1\] must be a number above 0, up to 1, got 0"),
        ("densities", [1.1], r"densities\[0\] must be .*got 1\.1"),
        ("densities", ["thin"], r"densities\[0\] must be .*got 'thin'"),
        ("mask_kinds", ["blocks"], r"mask_kinds\[0\] must be one of iid, channel, got 'blocks'"),
        ("layers", ["vgg17/conv1_1"], r"layers\[0\] must be NETWORK/LAYER, .*vgg16, .*got 'vgg17/conv1_1'"),
        ("layers", ["vgg16/conv9"], r"layers\[0\], after vgg16/, must be one of conv1_1, .*got 'conv9'"),
        ("layers", [3], r"layers\[0\] must be NETWORK/LAYER, .*got 3"),
        ("layers", [], "layers must name at least one layer where path is null"),
        ("path", 3, "path must be null or name an .npz file, got 3"),
        ("size", 40, "size must be a multiple of 32, got 40"),
        ("images", 0, "images must be a positive integer, got 0"),
        ("draws", 2.5, r"draws must be an integer of at least 2, got 2\.5"),
        ("patterns", 2, "patterns must be an integer of at least 3, got 2"),
        ("blocks", 1, "blocks must be an integer of at least 2, got 1"),
        ("step", 0.5, r"step must be a number above 0, below 0\.5, got 0\.5"),
        ("density", 1.0, r"density must be a number above 0, below 1, got 1\.0"),
        ("redrawn", [1.5], r"redrawn\[0\] must be a number from 0 to 1, got 1\.5"),
        ("scaled", [-1], r"scaled\[0\] must be a positive number, got -1"),
        ("seed", -1, "seed must be a non-negative integer, got -1"),
    ],
)
def test_bad_options_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fidelity_cases.read_settings(OPTIONS | {option: value})


def test_masks_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"path must name an \.npz file, got 'nowhere\.npz'"):
        fidelity_cases.load_layers(fidelity_cases.read_settings(OPTIONS | {"layers": [], "path": "nowhere.npz"}))


@pytest.mark.parametrize("text", ["no JSON\n", "[1]\n", '{"draws": 2}\n{"study": "error"}\n'])
def test_other_files_of_that_name_are_refused(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match="must hold cases of this command"):
        fidelity_cases.resume(path, {"draws": 2})
    assert path.read_text() == text


def test_help_does_not_wait_for_jax() -> None:
    program = "import sys; import experiments.fidelity; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
