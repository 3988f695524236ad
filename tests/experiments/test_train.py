"""The training command, from the command line: what it writes, how it resumes after a kill, and what it refuses."""

import json
import os
import pathlib
import re
import signal
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments import diff
from experiments.harness import command
from experiments.harness.tracking.json_lines import JsonLines
from experiments.train import options as train_settings
from phantom_jax import Phantom2D, simulate
from phantom_jax.workloads import read_npz
from tests.experiments import commands

SMALL = ("arch.pes=2", "arch.threads=2", "arch.lookahead=9", "arch.inter_balance=false")  # compiles sooner
FAST = ("fast=true", "data=digits", "checkpoint_every=4", "sparsity.cycles=0.3")
LEARNING = (*FAST, *SMALL, "sparsity=mac_penalty")
STEPS = 30  # an epoch of ten for each phase


def log(directory: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def results(directory: pathlib.Path) -> dict[str, Any]:
    return json.loads((directory / "results.json").read_text())


@pytest.mark.slow
def test_a_run_that_is_terminated_saves_its_state_and_writes_what_it_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("train", *FAST, "sparsity=global_magnitude", "hydra.run.dir=whole")
    with monkeypatch.context() as patched:
        patched.setattr(JsonLines, "log", terminate_at_step_6)
        done = commands.run_here(*options)
    assert done.returncode == 143
    again = rf"Terminated. The command resumes with\n  .* resume=true hydra.run.dir={tmp_path}/whole\n"
    assert re.fullmatch(again, done.stderr.lstrip())
    assert {path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()} == {"4", "6"}
    done = commands.run_here(*options, "resume=true")
    assert done.returncode == 0, done.stderr
    assert f"resumes after step 6 of {STEPS}" in done.stdout
    check_outputs(tmp_path / "whole", done.stdout)
    check_masks(tmp_path / "whole")
    run = diff.load(str(tmp_path / "whole"))
    assert [row["cycles"][0] == row["cycles"][1] for row in diff.compare(run, run)] == [True] * 4
    assert diff.differing(run, run) == {}


def terminate_at_step_6(log: JsonLines, values: Mapping[str, Any], step: int) -> None:
    log._write({"step": step, **values})
    if step == 6:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_killed_run_comes_to_the_same(tmp_path: pathlib.Path) -> None:
    done = commands.run("train", tmp_path, *LEARNING, "hydra.run.dir=whole")
    assert done.returncode == 0, done.stderr
    steps = [record for record in log(tmp_path / "whole") if "step" in record]
    assert {"expected_cycles", "penalty_weight", "calibration_age"} <= steps[12].keys()
    check_a_killed_run(tmp_path / "killed", tmp_path / "whole")


def check_outputs(directory: pathlib.Path, printed: str) -> None:
    assert printed.splitlines()[-1].endswith("whole")
    for line in ("At the end of each phase", "Cycle stack", "tune "):
        assert line in printed
    assert {path.name for path in directory.iterdir() if path.name != "train.log"} == {
        *(".hydra", ".lock", "checkpoints", "log.jsonl", "masks.npz", "progress.png", "progress.svg", "results.csv"),
        *("results.json", "stack.png", "stack.svg"),
    }
    found = results(directory)
    assert [row["phase"] for row in found["phases"]] == ["dense", "sparse", "tune"]
    assert found["test"]["cycle_share"] == found["phases"][-1]["cycle_share"] < found["phases"][0]["cycle_share"]
    assert found["test"]["speedup"] == pytest.approx(1 / found["test"]["cycle_share"])
    records = log(directory)
    steps = [record for record in records if "step" in record]
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    assert {"phase", "loss", "accuracy", "density"} <= steps[12].keys()
    assert "exact_cycles" in steps[10]
    assert records[0]["config"]["sparsity"]["cycles"] == 0.3
    assert records[-1] == {"failed": False}
    assert [record["table"] for record in records if "table" in record] == ["layers", "phases"]


def check_masks(directory: pathlib.Path) -> None:
    """They are a workload of the same cycles."""
    workload = read_npz(directory / "masks.npz")
    assert workload.names == ["conv1_1", "conv2_1", "fc3"]
    cycles = simulate(workload, Phantom2D()).cycles
    saved = results(directory)["layers"]
    np.testing.assert_array_equal(cycles, np.sum([layer["cycles"] for layer in saved], 0)[: len(cycles)])
    assert len(cycles) == 8


def check_a_killed_run(directory: pathlib.Path, expected: pathlib.Path) -> None:
    """It skips a damaged checkpoint, resumes, and comes to the same end; another configuration is refused."""
    above, run = directory.parent, directory.name

    def has_25_lines() -> bool:
        return (directory / "log.jsonl").exists() and len(log_lines(directory)) >= 25

    commands.kill_when(has_25_lines, "train", above, *LEARNING, f"hydra.run.dir={run}")
    with (directory / "log.jsonl").open("rb+") as file:  # as a disk may leave a line
        whole = file.read().splitlines(keepends=True)
        file.seek(0)
        file.writelines([*whole[:9], b"\0garbage\n", *whole[9:]])
    names = [path.name for path in (directory / "checkpoints").iterdir()]
    newest, older = sorted((int(name) for name in names if name.isdecimal()), reverse=True)[:2]
    for path in (directory / "checkpoints" / str(newest)).rglob("*"):  # as if it had been killed while it wrote
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-3])
    done = commands.run("train", above, *LEARNING, f"resume={run}")
    assert done.returncode == 0, done.stderr
    assert f"checkpoint {newest} is damaged" in done.stdout
    assert "log.jsonl has 1 line that cannot be read, the first of them line 10" in done.stderr
    assert f"resumes after step {older} of {STEPS}" in done.stdout
    assert [record for record in log(directory) if "step" in record] == [
        record for record in log(expected) if "step" in record
    ]
    with np.load(directory / "masks.npz") as got, np.load(expected / "masks.npz") as wanted:
        assert got.files == wanted.files
        for name in wanted.files:
            np.testing.assert_array_equal(got[name], wanted[name])
    found, wanted = results(directory), results(expected)
    for name in ("phases", "test", "layers"):
        assert found[name] == wanted[name]

    # A run of a sweep resumes without being asked to, so it refuses likewise.
    sweep = ("--multirun", *LEARNING, "hydra.sweep.dir=.", f"hydra.sweep.subdir={run}")
    other = commands.run("train", above, *sweep, "arch.rows=3", "seed=1")
    assert other.returncode == 1
    assert "another configuration: arch.rows was 7, now 3; seed was 0, now 1" in other.stderr
    for path in (directory / "checkpoints").rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:3])
    files = files_of(directory)
    again = commands.run("train", above, *LEARNING, f"hydra.run.dir={run}")
    assert again.returncode == 1
    assert "resume=true resumes from them" in again.stderr
    assert files_of(directory) == files


def files_of(directory: pathlib.Path) -> list[str]:
    """Returns all files but Hydra's log and the error that a run of a multirun left."""
    paths = (path for path in directory.rglob("*") if path.name not in ("train.log", "error.txt"))
    return sorted(str(path.relative_to(directory)) for path in paths)


def log_lines(directory: pathlib.Path) -> list[str]:
    return (directory / "log.jsonl").read_text().splitlines()


def options(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        composed: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    return composed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=-1"], "seed must be a non-negative integer, got -1"),
        (["checkpoint_every=0"], "checkpoint_every must be a positive integer, got 0"),
        (["resume=3"], "resume must be true, false or the directory of a run, got 3"),
        (["sparsity.cycles=2"], "sparsity.cycles must be a number above 0 and at most 1"),
        (["sparsity=n_m", "sparsity.n=9"], "sparsity.n must be less than m (4), got 9"),
        (["optimizer.name=lamb"], "optimizer.name must be one of adamw, sgd, got 'lamb'"),
        (["model.name=resnet"], "model.name must be one of vgg_small"),
        (["data=folder"], "data.dir must"),
        (["phases.dense.epochs=-2"], "phases.dense.epochs must be a non-negative integer, got -2"),
        (["model.stages=[]"], "stages must be a list of lists of filters, none of them empty, got []"),
        (["fast=true", "model.stages=[[0]]"], "stages[0][0] must be a positive integer, got 0"),
        (["fast=true", "phases.dense.epochs=-3"], "phases.dense.epochs must be a non-negative integer, got -3"),
        (["fast=true", "batch_size=0"], "batch_size must be a positive integer, got 0"),
        (["+sparsity.foo=1"], "there is no option sparsity.foo; the options of sparsity are logit_rate"),
        (["sparsity.name=n_m"], "there is no option sparsity.cycles"),
        (["sparsity=none", "sparsity.name=n_m"], "option sparsity.n is missing"),
        (["model.name=mobilenet_small"], "there is no option model.stages"),
        (["+data.foo=1"], "there is no option data.foo"),
        (["+optimizer.foo=1"], "there is no option optimizer.foo"),
        (["+phases.dense.foo=1"], "there is no option phases.dense.foo"),
        (["+phases.last.epochs=1"], "there is no option phases.last"),
        (["+color=red"], "there is no option color; the options of this command are arch, data"),
        (["~seed"], "option seed is missing"),
        (["phases=null"], "phases must be a group of options, got None"),
        (["phases.dense=3"], "phases.dense must be a group of options (epochs, learning_rate), got 3"),
        (["phases.tune.epochs=0"], "phases.sparse.epochs and phases.tune.epochs must be positive"),
        (["sparsity.cycles=null"], "sparsity.cycles or sparsity.density must be set"),
        (["data.fold=5"], "data.fold must be below the number of folds, 5, got 5"),
    ],
)
def test_bad_options_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold brackets
        train_settings.read(options(*overrides))
    assert message in str(error.value)


def test_mistakes_end_in_a_message(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    done = commands.run_here("train", "data=folder", "data.dir=empty")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: data.dir")
    assert "Traceback" not in done.stderr
