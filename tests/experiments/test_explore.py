"""The architecture search, from the command line: killed and gone on with, on two launchers."""

import json
import pathlib
from typing import Any

import pytest
from PIL import Image

from experiments.explore.area import area
from phantom_jax import Phantom2D, simulate
from phantom_jax.workloads import NETWORKS, SyntheticWorkload
from tests.experiments import jobs

SMALL = ("workload=mobilenet_v1", "workload.size=32", "workload.width=0.25")
SEARCH = ("--multirun", *SMALL, "hydra.sweep.dir=sweep")


@pytest.mark.slow
def test_a_killed_search_goes_on_and_counts_no_mesh_twice(tmp_path: pathlib.Path) -> None:
    sweep = tmp_path / "sweep"
    jobs.kill_when(lambda: len(jobs.results(sweep)) >= 3, "explore", tmp_path, *SEARCH, "hydra.sweeper.n_trials=50")
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/results.json")}
    done = jobs.run("explore", tmp_path, *SEARCH, "hydra.sweeper.n_trials=6", "hydra/launcher=joblib")
    assert done.returncode == 0, done.stderr
    assert "the study goes on after 2 trials; 4 are left" in done.stdout  # they are told in pairs
    assert {path: path.stat().st_mtime_ns for path in before} == before
    front = json.loads((sweep / "front.json").read_text())["trials"]
    found = jobs.results(sweep)
    assert {(row["cycles"], row["area"]) for row in front} <= {(r["cycles"], r["area"]) for r in found.values()}
    check_front(front)
    check_results(found)
    # Some of the presets had begun when the search was killed.
    assert {row["preset"] for row in front} >= {"phantom_cv", "phantom_md", "phantom_hp"}
    assert "phantom_cv" in done.stdout
    Image.open(sweep / "front.png").verify()

    other = jobs.run("explore", tmp_path, *SEARCH, "hydra.sweeper.n_trials=2", "arch.rows=2", "seed=1")
    assert other.returncode == 0, other.stderr
    assert len(json.loads((sweep / "front.json").read_text())["trials"]) == 2  # of a study of its own


def check_front(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        better = [r for r in rows if r["cycles"] <= row["cycles"] and r["area"] <= row["area"] and r is not row]
        assert row["on_front"] == (not better)


def check_results(found: dict[str, dict[str, Any]]) -> None:
    workload = SyntheticWorkload(NETWORKS["mobilenet_v1"](size=32, width=0.25), seed=0)
    for result in found.values():
        arch = Phantom2D(**result["settings"]["arch"])
        assert arch.multipliers <= 252 < arch.multipliers // arch.cols * (arch.cols + 1)
        assert result["cycles"] == simulate(workload, arch).cycles.mean()
        assert result["area"] == sum(area(arch).values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["multipliers=8"], "multipliers must be at least those of the mesh, got 8 for 7 x 1 cores of 3 x 3"),
        (["arch.cols=few"], "cols must be a positive integer, got 'few'"),
        (["+color=red"], "there is no option color"),
    ],
)
def test_mistakes_end_in_a_message(tmp_path: pathlib.Path, overrides: list[str], message: str) -> None:
    done = jobs.run("explore", tmp_path, *SMALL, *overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failing_mesh_does_not_lose_the_others(tmp_path: pathlib.Path) -> None:
    fixed = ("arch.pes=3", "arch.threads=3", "arch.lookahead=9", "arch.selector=in_order")
    balances = ("arch.intra_balance=true", "arch.inter_balance=true")
    done = jobs.run(
        "explore", tmp_path, *SEARCH, "arch.rows=choice(1,300)", *fixed, *balances, "hydra.sweeper.n_trials=4"
    )
    assert [row["params"] for row in json.loads((tmp_path / "sweep" / "front.json").read_text())["trials"]] == [
        {"arch.rows": 1}
    ], done.stderr
    assert done.returncode == 1
    assert "trials failed, and are left out: {'arch.rows': 300}" in done.stdout
    assert "multipliers must be at least those of the mesh, got 252 for 300 x 1 cores of 3 x 3" in done.stderr


def test_a_search_that_cannot_begin_says_so(tmp_path: pathlib.Path) -> None:
    done = jobs.run("explore", tmp_path, "--multirun", "workload=npz", "workload.path=missing.npz")
    assert done.returncode == 1
    assert "missing.npz" in done.stderr
    assert "Traceback" not in done.stderr
