"""The main command as its users meet it: from the command line."""

import csv
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

import phantom_jax
from experiments.harness import command, options
from experiments.harness.files import write_json
from phantom_jax import Phantom2D, Report, plotting, simulate, workloads
from tests.experiments import commands

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # which it exports to the commands it starts
PRESETS = ("phantom_cv", "phantom_md", "phantom_hp")


def run(directory: pathlib.Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs the main command in a directory, as `scripts/run` does."""
    return commands.run("simulate", directory, *overrides)


@pytest.fixture
def masks(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small file of masks."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "masks.npz",
        c1_weights=rng.random((3, 3, 8, 12)) < 0.4,
        c1_activations=rng.random((2, 10, 10, 8)) < 0.5,
        fc_weights=rng.random((200, 30)) < 0.3,
        fc_activations=rng.random((2, 200)) < 0.5,
        loss=np.zeros(3),
    )
    return tmp_path / "masks.npz"


def test_prints_tables_and_writes_results(tmp_path: pathlib.Path, masks: pathlib.Path) -> None:
    overrides = ("workload=npz", "workload.path=masks.npz", "arch=phantom_md", "arch.rows=5")
    done = commands.run("simulate", tmp_path, *overrides, environment=NOTEBOOK)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "Note: masks.npz: ignored 1 unknown arrays: loss" in lines
    assert any(line.split()[:2] == ["c1", "3x3"] for line in lines)
    directory = pathlib.Path(lines[-1])
    assert directory.parents[1] == tmp_path / "outputs"
    assert sorted(path.name for path in directory.iterdir()) == [
        *(".hydra", ".lock"),
        *("log.jsonl", "mesh.png", "mesh.svg", "results.csv", "results.json", "simulate.log"),
        *("speedups.png", "speedups.svg", "stack.png", "stack.svg"),
    ]

    with (directory / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["layer"], row["image"]) for row in rows] == [("c1", "0"), ("c1", "1"), ("fc", "0"), ("fc", "1")]

    results = json.loads((directory / "results.json").read_text())
    assert int(rows[1]["cycles"]) == results["layers"][0]["cycles"][1]
    expected = simulate(workloads.read_npz(masks), Phantom2D(rows=5, lookahead=18)).to_dict()
    assert {key: results[key] for key in expected} == expected
    assert results["schema_version"] == 1
    digest = hashlib.sha256(masks.read_bytes()).hexdigest()
    assert results["workload"] == {"name": "masks", "path": "masks.npz", "sha256": digest, "images": 2}
    assert results["seed"] is None
    assert results["versions"]["numpy"] == np.__version__
    assert (results["settings"]["arch"]["rows"], results["inputs"]) == (5, {"workload.path.sha256": digest})
    made = ("settings", "inputs", "versions", "git_revision", "git_modified")
    assert set(results) == {*expected, "schema_version", "workload", "seed", *made}


def test_a_figure_that_fails_does_not_lose_the_results(masks: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(report: Report) -> None:
        raise ValueError(f"{len(report.layers)} rows are too many.")

    monkeypatch.chdir(masks.parent)
    monkeypatch.setattr(plotting, "speedups", fail)
    done = commands.run_here("simulate", "workload=npz", "workload.path=masks.npz")
    assert done.returncode == 0, done.stderr
    assert "Note: there is no figure speedups. The results do not depend on it.\nError: 2 rows are" in done.stderr
    directory = pathlib.Path(done.stdout.splitlines()[-1])
    assert {path.name for path in directory.glob("*.png")} == {"stack.png", "mesh.png"}
    assert json.loads((directory / "results.json").read_text())["totals"]["cycles"]


def test_results_are_written_before_they_are_printed(masks: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(report: Report, console: object) -> None:
        assert list(masks.parent.glob("outputs/*/*/results.json"))
        assert list(masks.parent.glob("outputs/*/*/stack.png"))
        raise ValueError("nothing can be printed.")

    monkeypatch.chdir(masks.parent)
    monkeypatch.setattr(Report, "print", fail)
    done = commands.run_here("simulate", "workload=npz", "workload.path=masks.npz")
    assert "Error: nothing can be printed." in done.stderr


def test_multirun_over_presets(tmp_path: pathlib.Path, masks: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = commands.run_here(
        "simulate", "--multirun", "workload=npz", f"workload.path={masks}", f"arch={','.join(PRESETS)}", "seed=0"
    )
    assert done.returncode == 0, done.stderr
    directories = sorted(path.parent for path in tmp_path.glob("outputs/*/*/*/results.json"))
    assert [directory.name for directory in directories] == ["0", "1", "2"]
    assert done.stdout.splitlines()[-1] == str(directories[-1])
    lookaheads = [json.loads((path / "results.json").read_text())["architecture"]["lookahead"] for path in directories]
    assert lookaheads == [9, 18, 27]


def test_a_failing_run_does_not_stop_a_multirun(
    tmp_path: pathlib.Path, masks: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = commands.run_here("simulate", "--multirun", "workload=npz", f"workload.path={masks}", "arch.rows=0,2")
    assert done.returncode == 1
    assert "1 run failed:\n  #0 workload=npz" in done.stderr
    assert "arch.rows=0 tracking=none: arch.rows must be a positive integer, got 0.\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("outputs/*/*/1/results.json"))) == 1


def test_a_platform_that_is_not_there_ends_in_a_message(masks: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError  # as JAX does for cuda without a GPU

    monkeypatch.chdir(masks.parent)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    done = commands.run_here("simulate", "workload=npz", "workload.path=masks.npz")
    assert done.returncode == 1
    message = "JAX_PLATFORMS must be platforms that JAX can use here, got 'cuda': it finds no such device"
    assert done.stderr.startswith(f"Error: {message}\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["arch.rows=0"], "rows must be a positive integer, got 0."),
        (["arch.lookahead=1.5"], "lookahead must be a positive integer, got 1.5."),
        (["arch.selector=fastest"], "selector must be one of in_order, out_of_order, got 'fastest'."),
        (["arch=phantom"], "Could not find 'arch/phantom'"),
        (["workload=vgg17"], "Could not find 'workload/vgg17'"),
        (
            ["workload.name=vgg17"],
            "be one of npz, onnx, vgg16, mobilenet_v1, resnet50, inceptionnext_t, alexnet, googlenet, got 'vgg17'.",
        ),
        (["workload=npz"], "workload.path must be set: there is no default."),
        (["figures=3"], "figures must be a group of options (write, layer), got 3."),
        (
            ["workload=npz", "workload.path=nowhere.npz"],
            "path must name an .npz file, got 'nowhere.npz', which is missing",
        ),
        (["arch.depth=3"], "Key 'depth' is not in struct"),
        (["+arch.depth=3"], "there is no option arch.depth; the options of arch are rows, cols"),
        (["+workload.depth=3"], "there is no option workload.depth; the options of workload are images"),
        (["arch.cols=99999999999999999999"], "cols must be at most 2147483647, got 99999999999999999999"),
        (
            ["workload=npz", "workload.path=masks.npz", "figures.layer=c2"],
            "figures.layer must be one of c1, fc, got 'c2'",
        ),
        (["workload.densities=hans"], "densities must be one of han, scnn, got 'hans'"),
        (["workload.mask_kind=blocks"], "mask_kind must be one of iid, channel, got 'blocks'"),
        (["workload.weight_density=1.5"], "weight_density must be a number from 0 to 1, got 1.5"),
        (["workload.weight_spread=1"], "weight_spread must be 0 or a number from 0.001 to below 1, got 1"),
        (["workload.weight_pattern=5:4"], "weight_pattern must be N:M with N from 1 to M, got '5:4'"),
        (["workload=mobilenet_v1", "workload.width=0.3"], "width must be a positive multiple of 1/32, got 0.3"),
        (["tracking.mode=foo"], "tracking.mode (WANDB_MODE) must be one of online, offline, disabled, got 'foo'"),
        (["+tracking.color=red"], "there is no option tracking.color; the options of tracking are backend"),
        (["hydra.run.dir=masks.npz/out"], "must name a directory that can be written"),
    ],
)
def test_mistakes_end_in_a_message(
    masks: pathlib.Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(masks.parent)
    done = commands.run_here("simulate", *overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "name",
    [name if name == "mobilenet_v1" else pytest.param(name, marks=pytest.mark.slow) for name in workloads.NETWORKS],
)
def test_every_network_runs_from_the_command_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = commands.run_here(
        "simulate", f"workload={name}", "workload.size=32", "workload.mask_kind=channel", "figures.write=false"
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((pathlib.Path(done.stdout.splitlines()[-1]) / "results.json").read_text())
    assert len(results["layers"]) == len(workloads.NETWORKS[name]().layers)
    assert results["workload"]["mask_kind"] == "channel"
    assert all(layer["cycles"][0] > 0 for layer in results["layers"])


@pytest.mark.slow
def test_folders_of_the_same_names_are_not_mistaken_for_ours(tmp_path: pathlib.Path, masks: pathlib.Path) -> None:
    for name in ("conf", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    done = run(tmp_path, "workload=npz", "workload.path=masks.npz", "figures.write=false")
    assert done.returncode == 0, done.stderr


def test_results_of_names_with_brackets(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ones = {"[/x]$\\foo$_weights": np.ones((9, 2)), "[/x]$\\foo$_activations": np.ones(9), "[/y]": np.ones(1)}
    np.savez(tmp_path / "masks.npz", **ones)  # pyright: ignore[reportArgumentType]
    monkeypatch.chdir(tmp_path)
    done = commands.run_here("simulate", "workload=npz", "workload.path=masks.npz")
    assert done.returncode == 0, done.stderr
    assert "Note: masks.npz: ignored 1 unknown arrays: [/y]" in done.stdout


@pytest.mark.slow
def test_full_errors_can_be_had(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done = run(tmp_path, "arch.rows=0")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("path", ["~/masks.npz", "'~/masks.npz'"])
def test_a_tilde_is_the_home(
    tmp_path: pathlib.Path, masks: pathlib.Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    options = ("workload=npz", f"workload.path={path}", "hydra.run.dir=~/run", "figures.write=false")
    done = commands.run_here("simulate", *options)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["settings"]["workload"]["path"] == str(masks)
    assert results["inputs"] == {"workload.path.sha256": hashlib.sha256(masks.read_bytes()).hexdigest()}


def test_a_tilde_is_the_home_in_all_options_that_name_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    listed = ["~/b.npz", "vgg16/han"]
    config = OmegaConf.create({"workload": {"path": "~/a.npz"}, "networks": listed, "path": "~", "data": {"dir": "~"}})
    options.at_home(config)
    assert config == {
        "workload": {"path": "/home/me/a.npz"},
        "networks": ["/home/me/b.npz", "vgg16/han"],
        "path": "/home/me",
        "data": {"dir": "/home/me"},
    }
    found = [command.with_home(argument) for argument in ("path=~/a,~/b", "x=[~/a,~]", "~tracking", "x=a~/b", "x=~b")]
    assert found == ["path=/home/me/a,/home/me/b", "x=[/home/me/a,/home/me]", "~tracking", "x=a~/b", "x=~b"]


def test_a_killed_write_leaves_no_half_of_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "results.json"
    program = f"""
import os, pathlib, signal
from experiments.harness.files import write_json
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)  # just before the file would take its name
write_json(pathlib.Path({str(path)!r}), {{"new": 1}})
"""
    for before in (None, '{"old": 1}'):
        if before:
            path.write_text(before)
        killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)
        assert killed.returncode == -9
        assert (path.read_text() if path.exists() else None) == before


def test_a_failed_write_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "results.json", {"ratio": float("nan")})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}/results.json'")):
        write_json(tmp_path / "results.json", {})
    assert list(tmp_path.iterdir()) == []


def test_written_files_are_as_readable_as_others(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "results.json", {"a": [1, None]})
    (tmp_path / "other").touch()
    assert (tmp_path / "results.json").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": [1, None]}


@pytest.fixture(scope="module")
def hydra_config():
    """Hydra's composition, in this process."""
    with initialize_config_dir(version_base="1.3", config_dir=command.CONFIG_PATH):
        yield lambda *overrides: compose("simulate", overrides=list(overrides))


@pytest.mark.parametrize("preset", PRESETS)
def test_configured_presets_are_those_of_the_library(hydra_config, preset: str) -> None:
    assert Phantom2D(**hydra_config(f"arch={preset}").arch) == Phantom2D.preset(preset)


@pytest.mark.parametrize("group", [path.name for path in (ROOT / "conf").iterdir() if list(path.glob("*.yaml"))])
@pytest.mark.usefixtures("hydra_config")
def test_every_configuration_of_every_group_composes(group: str) -> None:
    names = [path.stem for path in (ROOT / "conf" / group).glob("*.yaml")]
    assert names
    for name in names:
        if group == "experiment":
            assert compose(commands.command_of(name), [f"experiment={name}"])
        else:
            assert compose(overrides=[f"+{group}={name}"])[group]


def test_version_is_that_of_the_package() -> None:
    done = commands.run_here("simulate", "--version")
    assert (done.returncode, done.stdout) == (0, f"phantom_jax {phantom_jax.__version__}\n")


def test_the_completion_that_help_names_completes() -> None:
    command_line = [sys.executable, "-m", "experiments.simulate", "--hydra-help"]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True)
    (source,) = re.findall("In Bash: (source .*)", done.stdout)
    assert "-sc install" not in done.stdout
    complete = f"""
        {source}
        COMP_LINE=" $PYTHON -m experiments.simulate workload=npz arch=phantom_h" COMP_POINT=100
        _phantom_jax_options
        echo "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", complete], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("phantom_hp\n", "")


def test_unknown_keys_do_not_compose(hydra_config) -> None:
    with pytest.raises(HydraException, match=r"workload\.depth"):
        hydra_config("workload.depth=3")


def test_help_does_not_wait_for_jax() -> None:
    program = "import sys; import experiments.simulate; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_vgg16_from_the_command_line(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((pathlib.Path(done.stdout.splitlines()[-1]) / "results.json").read_text())
    assert [layer["name"] for layer in results["layers"]][::15] == ["conv1_1", "fc8"]
    assert (results["workload"]["name"], results["seed"]) == ("vgg16", 0)
    # Deterministic: the masks come from the seed. Cycles as of the first version of this model.
    assert results["totals"]["cycles"] == [15157309]
