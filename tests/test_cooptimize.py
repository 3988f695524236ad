"""The co-optimization job: what it compares, writes and refuses, and that it goes on where it was interrupted."""

import csv
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf import schema
from experiments import command, cooptimize_cases
from phantom_jax import Phantom2D, simulate
from phantom_jax.sparsity import METHODS
from phantom_jax.workloads import read_npz
from tests import jobs

ONLY = [f"points.{name}=[]" for name in METHODS]
SMALL = (
    "fast=true",
    "data=digits",
    *ONLY,
    "points.global_magnitude=[0.3]",
    "points.cycle_aware=[0.3]",
    'points.n_m=["2:4"]',
    "swaps=3",
    "resamples=50",
    "hydra.run.dir=out",
)


@pytest.mark.slow
def test_the_job_compares_writes_and_goes_on_where_it_was_interrupted(tmp_path: pathlib.Path) -> None:
    done = jobs.run("cooptimize", tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "out"
    assert done.stdout.splitlines()[-1] == str(directory)
    for text in ("Accuracy and exact cycles on test folds", "accuracy minus 1 points", "cycle_aware", "2:4"):
        assert text in done.stdout
    results = json.loads((directory / "results.json").read_text())
    points = [(row["method"], row["target"], row["folds"]) for row in results["points"]]
    assert points == [("dense", None, 1), ("global_magnitude", 0.3, 1), ("n_m", "2:4", 1), ("cycle_aware", 0.3, 1)]
    assert [row["method"] for row in results["equal_accuracy"]] == ["global_magnitude", "n_m", "cycle_aware"]
    with (directory / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    for name in ("front", "densities", "stacks", "kernels"):
        assert (directory / f"{name}.png").stat().st_size > 10_000

    kept = directory / "cases.jsonl"
    head, *lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    learned = json.loads(lines[3])
    workload = read_npz(directory / "masks" / "fold0-cycle_aware-0.3.npz")
    cycles = simulate(workload, Phantom2D()).cycles
    np.testing.assert_array_equal(cycles, learned["cycles"][: len(cycles)])
    assert sum(learned["cycles"]) != sum(learned["unordered_cycles"])
    assert np.mean(learned["cycles"]) / learned["dense_cycles"] == pytest.approx(0.3, rel=0.1)

    # Again, from a file that was cut in the middle of its last line: the same, but for how long it took.
    kept.write_text(head + "".join(lines[:-1]) + lines[-1][:20])
    again = jobs.run("cooptimize", tmp_path, *SMALL)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    refused = jobs.run("cooptimize", tmp_path, *SMALL, "seed=1")
    assert refused.returncode == 1
    assert "holds cases that were measured with other settings: seed 0, now 1" in refused.stderr


def read(*overrides: str) -> cooptimize_cases.Settings:
    schema.register()
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        composed: Any = OmegaConf.to_container(compose("cooptimize", list(overrides)), resolve=True)
    return cooptimize_cases.read_settings(composed)


def test_points_are_methods_with_targets_and_patterns() -> None:
    settings = read(*ONLY, "points.cycle_aware=[0.1,0.05]", 'points.n_m=["1:4"]')
    assert settings.points == (("n_m", "1:4"), ("cycle_aware", 0.1), ("cycle_aware", 0.05))
    assert settings.folds == (0, 1, 2, 3, 4)
    fast = read(*ONLY, "points.cycle_aware=[0.1,0.05]", 'points.n_m=["1:4","2:4"]', "fast=true")
    assert fast.points == (("n_m", "1:4"), ("cycle_aware", 0.1))
    assert fast.folds == (0,)


@pytest.mark.slow
def test_folds_as_jobs_of_a_sweep_have_one_summary(tmp_path: pathlib.Path) -> None:
    small = ("fast=true", "data=digits", *ONLY, "points.global_magnitude=[0.3]", "resamples=50")
    together = jobs.run("cooptimize", tmp_path, "--multirun", *small, "folds=[0],[1]", "hydra.sweep.dir=out")
    assert together.returncode == 0, together.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"]["folds"] == [0, 1]
    each = [json.loads((tmp_path / "out" / name / "results.json").read_text())["points"][1] for name in "01"]
    assert results["points"][1]["folds"] == 2
    assert results["points"][1]["accuracy"] == pytest.approx((each[0]["accuracy"] + each[1]["accuracy"]) / 2)
    assert (tmp_path / "out" / "front.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+points.lottery=[0.1]"], "points must be one of global_magnitude"),
        (["points.cycle_aware=[2]"], "points.cycle_aware[0] must be a number above 0 and at most 1, got 2"),
        (["points.cycle_aware=0.1"], "points.cycle_aware must be a list, got 0.1"),
        (["points.n_m=[24]"], 'points.n_m[0] must be a pattern such as "2:4", got 24'),
        (ONLY, "points must hold a target of some method, got none"),
        (["swaps=-1"], "swaps must be a non-negative integer, got -1"),
        (["folds=[]"], "folds must be a list that is not empty, got []"),
        (["loss=2"], "loss must be a number from 0 to 1, got 2"),
        (["resamples=0"], "resamples must be a positive integer, got 0"),
        (["evaluated_images=0"], "evaluated_images must be a positive integer, got 0"),
        (["+color=red"], "there is no option color"),
        (["+learner.foo=1"], "there is no option foo"),
    ],
)
def test_bad_options_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold brackets
        read(*overrides)
    assert message in str(error.value)
