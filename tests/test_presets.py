"""Every preset of an experiment runs in a fast mode, with the job that its first lines name."""

import json
import pathlib
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf import schema
from experiments import command, cooptimize_cases
from tests import jobs

PRESETS = sorted(path.stem for path in pathlib.Path(command.CONFIG_PATH, "experiment").glob("*.yaml"))
LONG = ("ablations_vgg_mnist5k", "activations_digits", "activations_mobilenet_mnist5k")  # a minute each


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in PRESETS]
)
def test_every_experiment_runs_in_a_fast_mode(tmp_path: pathlib.Path, preset: str) -> None:
    job = jobs.job_of(preset)
    done = jobs.run(job, tmp_path, f"experiment={preset}", "fast=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["phases" if job == "train" else "points"]


@pytest.mark.parametrize("preset", LONG)
def test_what_a_long_experiment_would_train_is_valid(preset: str) -> None:
    schema.register()
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        options: Any = OmegaConf.to_container(compose("cooptimize", [f"experiment={preset}"]), resolve=True)
    settings = cooptimize_cases.read_settings(options)
    cooptimize_cases.check(settings)
    assert settings.reference in dict(settings.points)
