"""Every preset of an experiment has valid options, and runs in a fast mode with the command in its first lines."""

import functools
import json
import pathlib
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.cooptimize import cases as cooptimize_cases
from experiments.harness import command
from experiments.train import options as train_options
from experiments.train.methods import METHODS
from tests.experiments import commands

PRESETS = sorted(path.stem for path in pathlib.Path(command.CONFIG_PATH, "experiment").glob("*.yaml"))
CHEAP = "front_digits"
SMALL = (  # compiles in seconds
    *("arch.pes=1", "arch.threads=1", "arch.lookahead=3", "other_meshes={}", "reorder_swaps=1"),
    *(f"{targets}.{name}=[]" for name in METHODS for targets in ("targets", "with_activations")),
    *("targets.global_magnitude=[0.3]", "compared_with=global_magnitude"),
)


@functools.cache
def load_data(**options: Any) -> Any:  # which takes seconds
    return train_options.load_data(options)


@pytest.mark.parametrize("preset", PRESETS)
def test_options_of_every_preset_are_valid(preset: str) -> None:
    name = commands.command_of(preset)
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        options: Any = OmegaConf.to_container(compose(name, [f"experiment={preset}"]), resolve=True)
    loaded = load_data(**{name: value for name, value in options["data"].items() if name in ("name", "dir", "size")})
    if name == "train":
        assert train_options.read(options, loaded).splits
    else:
        settings = cooptimize_cases.read_settings(options)
        vars(settings)["loaded"] = loaded  # a cached property
        cooptimize_cases.check(settings)
        assert settings.compared_with in dict(settings.points)


def test_a_preset_runs_in_a_fast_mode(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = commands.run_here("cooptimize", f"experiment={CHEAP}", "fast=true", "hydra.run.dir=run", *SMALL)
    check(done, tmp_path / "run" / "results.json", "cooptimize")


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_in_a_fast_mode(tmp_path: pathlib.Path, preset: str) -> None:
    name = commands.command_of(preset)
    done = commands.run(name, tmp_path, f"experiment={preset}", "fast=true", "hydra.run.dir=run")
    check(done, tmp_path / "run" / "results.json", name)


def check(done: Any, results: pathlib.Path, name: str) -> None:
    assert done.returncode == 0, done.stderr
    assert json.loads(results.read_text())["phases" if name == "train" else "points"]


@pytest.mark.parametrize("name", sorted({commands.command_of(preset) for preset in PRESETS}))
def test_an_unknown_preset_is_refused(name: str) -> None:
    done = commands.run_here(name, "experiment=front_digit")
    assert done.returncode == 1
    assert f"In '{name}': Could not find 'experiment/front_digit'" in done.stderr
