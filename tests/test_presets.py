"""Every preset of an experiment runs in a fast mode, with the job that its first lines name."""

import json
import pathlib

import pytest

from experiments import command
from tests import jobs

PRESETS = sorted(path.stem for path in pathlib.Path(command.CONFIG_PATH, "experiment").glob("*.yaml"))
FAST = {  # of each job what makes it fast, and what its results have
    "train": (("fast=true", "hydra.run.dir=run"), "results.json", "phases"),
    "cooptimize": (("fast=true", "hydra.run.dir=run"), "results.json", "points"),
    "explore": (
        ("--multirun", "hydra.sweeper.n_trials=2", "workload.size=32", "hydra.sweep.dir=run"),
        "front.json",
        "trials",
    ),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_experiment_runs_in_a_fast_mode(tmp_path: pathlib.Path, preset: str) -> None:
    job = jobs.job_of(preset)
    overrides, file, rows = FAST[job]
    done = jobs.run(job, tmp_path, f"experiment={preset}", *overrides)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / file).read_text())[rows]
