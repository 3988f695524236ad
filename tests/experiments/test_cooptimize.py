"""The co-optimization command: what it compares, writes and refuses, and that it resumes where it was interrupted."""

import csv
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import phantom_jax
from experiments.cooptimize import cases as cooptimize_cases
from experiments.cooptimize import summary as cooptimize_summary
from experiments.cooptimize.folds import Folds
from experiments.harness import command
from experiments.harness.files import write_json, write_whole
from experiments.harness.resume import identity
from experiments.train.methods import METHODS
from phantom_jax import Layer, Phantom2D, simulate
from phantom_jax.sparsity import dense_cycles
from phantom_jax.workloads import read_npz, write_npz
from tests.experiments import commands

ONLY = [f"targets.{name}=[]" for name in METHODS]
SMALL = (
    "fast=true",
    "data=digits",
    *ONLY,
    "targets.global_magnitude=[0.3]",
    "targets.cycle_aware=[0.3]",
    'targets.n_m=["2:4"]',
    "with_activations.global_magnitude=[1]",
    "+other_meshes.wide={rows: 4, cols: 7}",
    "reorder_swaps=3",
    "resamples=50",
    "hydra.run.dir=out",
)


@pytest.mark.slow
def test_the_command_compares_writes_and_resumes_where_it_was_interrupted(tmp_path: pathlib.Path) -> None:
    done = commands.run("cooptimize", tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "out"
    assert done.stdout.splitlines()[-1] == str(directory)
    for text in ("Accuracy and exact cycles on test folds", "accuracy minus 1 points", "cycle_aware", "2:4"):
        assert text in done.stdout
    results = json.loads((directory / "results.json").read_text())
    points = [(row["method"], row["target"], row["folds"]) for row in results["points"]]
    sparser = "global_magnitude+activations"
    methods = [("global_magnitude", 0.3, 1), ("n_m", "2:4", 1), ("cycle_aware", 0.3, 1), (sparser, 1, 1)]
    assert points == [("dense", None, 1), *methods]
    names = [method for method, _, _ in methods]
    assert [row["method"] for row in results["equal_accuracy"]] == names
    assert [(row["mesh"], row["method"]) for row in results["elsewhere"]] == [("wide", name) for name in names]
    assert results["points"][4]["weights"] == 1
    activations = {row["method"]: row["activations"] for row in results["layers"] if row["layer"] == "conv2_1"}
    assert activations[sparser] < activations["dense"]
    with (directory / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    for name in ("front", "densities", "stacks", "kernels"):
        assert (directory / f"{name}.png").stat().st_size > 10_000

    kept = directory / "cases.jsonl"
    head, *lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    learned = json.loads(lines[3])
    workload = read_npz(directory / "masks" / "fold0-cycle_aware-0.3.npz")
    cycles = simulate(workload, Phantom2D()).cycles
    np.testing.assert_array_equal(cycles, learned["cycles"][: len(cycles)])
    wide = Phantom2D(rows=4, cols=7)
    shares = simulate(workload, wide).cycles / dense_cycles(workload, wide)
    np.testing.assert_array_equal(shares, learned["shares_elsewhere"]["wide"][: len(cycles)])
    dense = json.loads(lines[0])
    assert sum(dense["cycles"]) != sum(dense["unordered_cycles"])
    assert np.mean(learned["cycles"]) / learned["dense_cycles"] == pytest.approx(0.3, rel=0.1)

    # Again, from a file that was cut in the middle of its last line: the same, but for how long it took.
    kept.write_text(head + "".join(lines[:-1]) + lines[-1][:20])
    again = commands.run("cooptimize", tmp_path, *SMALL)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    refused = commands.run("cooptimize", tmp_path, *SMALL, "seed=1")
    assert refused.returncode == 1
    assert "holds cases that were measured with other settings: seed 0, now 1" in refused.stderr


def composed(*overrides: str) -> Any:
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        return OmegaConf.to_container(compose("cooptimize", list(overrides)), resolve=True)


def read(*overrides: str) -> cooptimize_cases.Settings:
    return cooptimize_cases.read_settings(composed(*overrides))


def test_points_are_methods_with_targets_and_patterns() -> None:
    settings = read(*ONLY, "targets.cycle_aware=[0.1,0.05]", 'targets.n_m=["1:4"]')
    assert settings.points == (("n_m", "1:4"), ("cycle_aware", 0.1), ("cycle_aware", 0.05))
    assert settings.folds == (0, 1, 2, 3, 4)
    sparser = read(*ONLY, "with_activations.n_m=[2:4]", "with_activations.stale=[1]", "other_meshes={}")
    assert sparser.points == (("n_m+activations", "2:4"), ("stale+activations", 1))
    fast = read(*ONLY, "targets.cycle_aware=[0.1,0.05]", 'targets.n_m=["1:4","2:4"]', "fast=true")
    assert fast.points == (("n_m", "1:4"), ("cycle_aware", 0.1))
    assert fast.folds == (0,)


def test_folds_as_runs_of_a_sweep_have_one_summary(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fold in (0, 1):
        write_run(tmp_path / str(fold), fold)
    Folds().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["settings"]["folds"] == [0, 1]
    dense, sparse = results["points"]
    assert (sparse["method"], sparse["folds"]) == ("cycle_aware", 2)
    assert dense["accuracy"] == 1.0
    assert sparse["accuracy"] == pytest.approx(0.8)  # 0.9 and 0.7
    assert sparse["cycle_share"] == pytest.approx(0.1)
    assert sparse["ordering_gain"] == pytest.approx(0.5)
    assert (tmp_path / "kernels.png").stat().st_size > 10_000
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path)

    write_run(tmp_path / "2", 2, seed=1)
    Folds().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert "no summary of all folds: runs differ in more than folds" in capsys.readouterr().out


def write_run(directory: pathlib.Path, fold: int, seed: int = 0) -> None:
    """Writes what a finished run of one fold leaves: settings, cases and masks."""
    options = composed(*ONLY, "targets.cycle_aware=[0.1]", f"folds=[{fold}]", f"seed={seed}")
    made = {"settings": options, "inputs": {}, "versions": {"phantom_jax": phantom_jax.__version__}}
    directory.mkdir()
    write_json(directory / "results.json", {**made, "git_revision": None, "git_modified": None})
    cooptimize_cases.resume(directory / "cases.jsonl", identity(made, cooptimize_cases.SELECTIONS))
    layer = Layer.conv(np.ones((3, 3, 2, 4)), np.ones((1, 6, 6, 2)), name="only")
    report = simulate(layer, Phantom2D()).layers[0]
    for method, target, right, cycles in (("dense", None, 10, 60), ("cycle_aware", 0.1, 9 - 2 * fold, 10)):
        of_layer = {
            **dict.fromkeys(("size", "weights", "activations", "empty_filters", "empty_kernels", "cycles"), 1.0),
            "spread_of_filters": 0.0,
            "name": "only",
            "stack": {name: float(slots.mean()) for name, slots in report.stack.items()},
        }
        correct, after, before = "1" * right + "0" * (10 - right), [cycles] * 4, [2 * cycles] * 4
        measured = (str(fold), correct, after, before, {}, 100, 10.0, None, 1.0, [of_layer])
        case = cooptimize_cases.Case(method, target, fold, right / 10, 0.9, *measured)
        with (directory / "cases.jsonl").open("a") as file:
            file.write(json.dumps(vars(case)) + "\n")
        path = cooptimize_cases.mask_path(directory, fold, method, target)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, lambda file: write_npz(file, [layer]))


def test_any_method_can_be_the_one_that_others_are_compared_with(tmp_path: pathlib.Path) -> None:
    write_run(tmp_path / "0", 0)
    made = json.loads((tmp_path / "0" / "results.json").read_text())
    identity_of_cases = identity(made, cooptimize_cases.SELECTIONS)
    cases = list(cooptimize_cases.resume(tmp_path / "0" / "cases.jsonl", identity_of_cases).values())
    cases.append(dataclasses.replace(cases[1], method="stale+activations", cycles=[5] * 4))
    cases.append(dataclasses.replace(cases[2], target=0.05, cycles=[1] * 4, correct="0" * 10, validation_accuracy=0.8))
    over, by_validation = {}, {}
    for compared_with in ("cycle_aware", "stale+activations", "n_m"):
        summary = cooptimize_summary.summarize(cases, 0.1, compared_with, 10)
        over[compared_with] = [row["ratio"] for row in summary.equal_accuracy]
        by_validation[compared_with] = [row["validation_ratio"] for row in summary.equal_accuracy]
        assert cooptimize_summary.tables(summary)[1].columns[4].header == f"over {compared_with}"
    assert over.pop("n_m") == by_validation.pop("n_m") == [None, None]
    assert over == {"cycle_aware": pytest.approx([1, 0.5]), "stale+activations": pytest.approx([2, 1])}
    # The last point is accurate enough on validation images, but not on test images.
    assert by_validation == {"cycle_aware": pytest.approx([1, 0.1]), "stale+activations": pytest.approx([10, 1])}


def test_what_only_training_would_notice_is_refused_before() -> None:
    cooptimize_cases.check(read("data=digits"))
    with pytest.raises(ValueError, match=r"learner\.gain must be"):
        cooptimize_cases.check(read("data=digits", "learner.gain=-1"))
    with pytest.raises(ValueError, match=r"batch_size must be at most the 1\d\d\d training images, got 2000"):
        cooptimize_cases.check(read("data=digits", "batch_size=2000"))


def test_a_dense_network_that_cannot_be_trained_is_tried_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(*arguments: Any) -> Any:
        tried.append(arguments)
        raise ValueError("diverged")

    monkeypatch.setattr(cooptimize_cases, "_train_dense", fail)
    settings = read(*ONLY, "data=digits", "targets.cycle_aware=[0.1]", "folds=[0,1]")
    cases = list(cooptimize_cases.plan(settings, Phantom2D(), tmp_path))
    assert len(cases) == 4
    for _, measure in cases:
        with pytest.raises(ValueError, match="diverged"):
            measure()
    assert len(tried) == 2


def test_the_summary_of_folds_has_what_is_planned_and_no_more(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Folds().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert "no summary of all folds: there is no directory with results.json" in capsys.readouterr().out
    write_run(tmp_path / "0", 0)
    kept = tmp_path / "0" / "cases.jsonl"
    *_, last = kept.read_text().splitlines()
    with kept.open("a") as file:  # a target that was dropped from points later
        file.write(json.dumps({**json.loads(last), "target": 0.2}) + "\n")
    Folds().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    points = json.loads((tmp_path / "results.json").read_text())["points"]
    assert [(row["method"], row["target"]) for row in points] == [("dense", None), ("cycle_aware", 0.1)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+targets.lottery=[0.1]"], "targets must be one of global_magnitude"),
        (["+targets.lottery=[]"], "targets must be one of global_magnitude"),
        (["with_activations.stale=[2]"], "with_activations.stale[0] must be a number above 0 and at most 1, got 2"),
        (["data.fold=1"], "data.fold must be left at 0, since folds says which are tested on, got 1"),
        (["data.folds=3"], "folds[3] must be below data.folds, 3, got 3"),
        (["targets.n_m=['4:2']"], "targets.n_m[0] must keep some of a group and not all, as \"2:4\" does, got '4:2'"),
        (["activation_penalty=0"], "activation_penalty must be a number above 0, got 0"),
        (["+other_meshes.wide=4"], "other_meshes.wide must be parameters of arch that differ, got 4"),
        (
            ["+other_meshes.wide.raws=4"],
            "there is no option other_meshes.wide.raws; the options of",
        ),
        (["data.folds=1"], "folds[1] must be below data.folds, 1, got 1"),
        (["+other_meshes.wide.rows=0"], "other_meshes.wide.rows must be a positive integer, got 0"),
        (["targets.cycle_aware=[2]"], "targets.cycle_aware[0] must be a number above 0 and at most 1, got 2"),
        (["targets.cycle_aware=0.1"], "targets.cycle_aware must be a list, got 0.1"),
        (["targets.n_m=[24]"], 'targets.n_m[0] must be a pattern such as "2:4", got 24'),
        (ONLY, "targets must hold a target of some method, got none"),
        (["reorder_swaps=-1"], "reorder_swaps must be a non-negative integer, got -1"),
        (["folds=[]"], "folds must be a list that is not empty, got []"),
        (["accuracy_drop=2"], "accuracy_drop must be a number from 0 to 1, got 2"),
        (["compared_with=lottery"], "compared_with must be one of global_magnitude"),
        (["resamples=0"], "resamples must be a positive integer, got 0"),
        (["evaluated_images=0"], "evaluated_images must be a positive integer, got 0"),
        (["+color=red"], "there is no option color"),
        (["+learner.foo=1"], "there is no option learner.foo"),
        (["learner=3"], "learner must be a group of options ("),
        (["targets=3"], "targets must be a group of options, got 3"),
        (["other_meshes=3"], "other_meshes must be a group of options, got 3"),
    ],
)
def test_bad_options_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold brackets
        read(*overrides)
    assert message in str(error.value)
