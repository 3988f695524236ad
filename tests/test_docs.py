"""What the documentation says can be done is done here: every command, every picture, the tour, the installation."""

import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from docs import figures
from experiments.harness import command
from tests.experiments.commands import save_onnx
from tests.experiments.test_simulate import run

ROOT = pathlib.Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


def documented_commands() -> list[tuple[str, str]]:
    """Returns name and overrides of every command of `experiments` in a code block of the documentation."""
    commands = set()
    for page in PAGES:
        for block in page.read_text().split("```")[1::2]:
            block = block.replace("\\\n", " ").replace("scripts/run", ".venv/bin/python -m experiments.simulate")
            for name, overrides in re.findall(r"^\.venv/bin/python -m experiments\.(\w+)(.*)", block, re.MULTILINE):
                commands.add((name, overrides.split("#")[0].strip()))
    return sorted(commands)


def documented_runs() -> list[str]:
    """Returns the overrides of every run of the main command."""
    return [overrides for name, overrides in documented_commands() if name == "simulate" and "hydra" not in overrides]


def test_there_are_documented_runs() -> None:
    assert len(documented_runs()) >= 8
    assert "" in documented_runs()


@pytest.mark.parametrize(("name", "overrides"), [each for each in documented_commands() if each[0] != "diff"])
def test_documented_commands_compose(name: str, overrides: str) -> None:
    """Every option exists; of several values, the first is composed."""
    words = [word for word in shlex.split(overrides) if word != "--multirun" and not word.startswith("hydra")]
    words = [word if "[" in word else word.partition(",")[0] for word in words]
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        assert compose(name, words)


@pytest.mark.parametrize(
    "overrides",
    [pytest.param(run, marks=[] if run.startswith("workload=npz") else pytest.mark.slow) for run in documented_runs()],
)
def test_documented_runs(tmp_path: pathlib.Path, overrides: str) -> None:
    """Each runs as it is written, but for a smaller picture."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "masks.npz", a_weights=rng.random((9, 4)) < 0.5, a_activations=rng.random((1, 9)) < 0.5)
    if "onnx" in overrides:
        save_onnx(tmp_path)
    smaller = [] if "npz" in overrides or "workload.size" in overrides else ["workload.size=32"]
    done = run(tmp_path, *overrides.split(), *smaller)
    assert done.returncode == 0, done.stderr
    assert (pathlib.Path(done.stdout.splitlines()[-1]) / "results.json").exists()


def test_tour(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tour", str(tmp_path)])
    runpy.run_module("docs.tour", run_name="__main__")
    assert "as it is" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mesh.png", "stack.png"]


@pytest.mark.slow
def test_own_loop() -> None:
    done = subprocess.run([sys.executable, "-m", "docs.own_loop"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    in_flax, in_jax = done.stdout.splitlines()
    correct, _, share = map(float, re.findall(r"[\d.]+", in_flax))
    assert correct > 90
    assert share == pytest.approx(own_loop_target(), rel=0.15)
    for share in map(float, re.findall(r"[\d.]+", in_jax)):
        assert share == pytest.approx(own_loop_target(), rel=0.2)


def own_loop_target() -> float:
    """Returns the share of the dense cycles that docs/own_loop.py wants."""
    found = re.search(r"TARGET, STEPS = ([\d.]+)", (ROOT / "docs/own_loop.py").read_text())
    assert found
    return float(found[1])


def test_links_and_pictures_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_scripts_that_are_named_exist() -> None:
    for page in PAGES:
        for script in re.findall(r"scripts/[a-z_]+(?:\.py)?", page.read_text()):
            assert (ROOT / script).exists(), f"{page.name}: {script}"


def test_the_picture_of_the_pipeline_draws() -> None:
    assert len(figures.pipeline().axes) == 5


@pytest.mark.slow
def test_all_pictures_draw(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.figures", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.iterdir()} == {path.stem for path in (ROOT / "docs/images").glob("*.png")}


@pytest.mark.slow
def test_api_reference(tmp_path: pathlib.Path) -> None:
    if not (ROOT / ".venv/all.lock").exists():
        pytest.skip("these tests do not run in the environment that scripts/setup builds")
    done = subprocess.run([ROOT / "scripts/docs", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Counts the exact cycles that layers take" in (tmp_path / "phantom_jax.html").read_text()
    assert "Returns the cycle stack of each layer" in (tmp_path / "phantom_jax/plotting.html").read_text()


def test_installed_alone_it_imports_without_hydra_wandb_or_matplotlib(tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(ROOT / "phantom_jax", source / "phantom_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
    ]
    where = ["--python", sys.executable, "--target", target]
    done = subprocess.run([*install, *where, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    program = f"""
import sys
for name in ("hydra", "omegaconf", "wandb", "matplotlib", "conf", "experiments"):
    sys.modules[name] = None
sys.path.insert(0, {str(target)!r})
import numpy as np
import phantom_jax
assert phantom_jax.__file__.startswith({str(target)!r})
layer = phantom_jax.Layer.dense(np.ones((9, 4)), np.ones((1, 9)))
assert phantom_jax.simulate(layer, phantom_jax.Phantom2D()).cycles.tolist() == [1]
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hooks_are_local() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    assert all(hook["language"] == "system" for hook in hooks[0]["hooks"])
