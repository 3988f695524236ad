"""Every preset of an experiment runs in a fast mode, with the job that its first lines name."""

import json
import pathlib
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.cooptimize import cases as cooptimize_cases
from experiments.harness import command
from tests.experiments import jobs

PRESETS = sorted(path.stem for path in pathlib.Path(command.CONFIG_PATH, "experiment").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_experiment_runs_in_a_fast_mode(tmp_path: pathlib.Path, preset: str) -> None:
    job = jobs.job_of(preset)
    done = jobs.run(job, tmp_path, f"experiment={preset}", "fast=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["phases" if job == "train" else "points"]


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if jobs.job_of(preset) == "cooptimize"])
def test_what_a_comparison_would_train_is_valid(preset: str) -> None:
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        options: Any = OmegaConf.to_container(compose("cooptimize", [f"experiment={preset}"]), resolve=True)
    settings = cooptimize_cases.read_settings(options)
    cooptimize_cases.check(settings)
    assert settings.compared_with in dict(settings.points)


@pytest.mark.parametrize("job", sorted({jobs.job_of(preset) for preset in PRESETS}))
def test_an_unknown_preset_is_refused(tmp_path: pathlib.Path, job: str) -> None:
    done = jobs.run(job, tmp_path, "experiment=front_digit")
    assert done.returncode == 1
    assert f"In '{job}': Could not find 'experiment/front_digit'" in done.stderr
