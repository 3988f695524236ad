"""The architecture search, from the command line: killed and started again, on two launchers."""

import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.explore.area import area
from phantom_jax import Phantom2D, simulate
from phantom_jax.workloads import NETWORKS, SyntheticWorkload
from tests.experiments import commands

SMALL = ("workload=mobilenet_v1", "workload.size=32", "workload.width=0.25")
SEARCH = ("--multirun", *SMALL, "hydra.sweep.dir=sweep")


@pytest.mark.slow
def test_a_killed_search_resumes_and_counts_no_mesh_twice(tmp_path: pathlib.Path) -> None:
    sweep = tmp_path / "sweep"
    commands.kill_when(
        lambda: len(commands.results(sweep)) >= 3, "explore", tmp_path, *SEARCH, "hydra.sweeper.n_trials=50"
    )
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/results.json")}
    done = commands.run("explore", tmp_path, *SEARCH, "hydra.sweeper.n_trials=6", "hydra/launcher=joblib")
    assert done.returncode == 0, done.stderr
    assert "the study resumes after 2 trials; 4 are left" in done.stdout  # they are counted in pairs
    assert {path: path.stat().st_mtime_ns for path in before} == before
    front = json.loads((sweep / "front.json").read_text())["trials"]
    found = commands.results(sweep)
    assert {(row["cycles"], row["area"]) for row in front} <= {(r["cycles"], r["area"]) for r in found.values()}
    check_front(front)
    check_results(found)
    # Some of the presets had begun when the search was killed.
    assert {row["preset"] for row in front} >= {"phantom_cv", "phantom_md", "phantom_hp"}
    assert "phantom_cv" in done.stdout
    Image.open(sweep / "front.png").verify()

    other = commands.run("explore", tmp_path, *SEARCH, "hydra.sweeper.n_trials=2", "arch.rows=2", "seed=1")
    assert other.returncode == 0, other.stderr
    assert len(json.loads((sweep / "front.json").read_text())["trials"]) == 2  # of its own study


def check_front(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        better = [r for r in rows if r["cycles"] <= row["cycles"] and r["area"] <= row["area"] and r is not row]
        assert row["on_front"] == (not better)


def check_results(found: dict[str, dict[str, Any]]) -> None:
    workload = SyntheticWorkload(NETWORKS["mobilenet_v1"](size=32, width=0.25), seed=0)
    for result in found.values():
        arch = Phantom2D(**result["architecture"])
        assert arch.multipliers <= 252 < arch.multipliers // arch.cols * (arch.cols + 1)
        assert result["cycles"] == simulate(workload, arch).cycles.mean()
        assert result["area"] == sum(area(arch).values())


MISTAKES = [
    (["multipliers=8"], "multipliers must be at least those of the mesh, got 8 for 7 x 1 cores of 3 x 3"),
    (["arch.cols=few"], "cols must be a positive integer, got 'few'"),
    (["+color=red"], "there is no option color"),
    (["--multirun", "workload=npz", "workload.path=missing.npz"], "missing.npz"),
    (["--multirun", "+color=red"], "there is no option color; the options of this command are arch, workload"),
    (["--multirun", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be a positive integer, got 0"),
    (["--multirun", "hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs must be a positive integer, got 0"),
    (
        ["--multirun", "hydra.sweeper.max_failure_rate=2"],
        "hydra.sweeper.max_failure_rate must be a number from 0 to 1, got 2.0",
    ),
    (["--multirun", "hydra.sweep.dir=file/sweep"], "hydra.sweep.dir must name a directory that can be written"),
    (
        ["--multirun", "hydra.sweeper.storage=sqlite:///file"],
        "hydra.sweeper.storage must be a database that can be read and written, got sqlite:///file: ",
    ),
    (
        ["--multirun", "hydra.sweeper.storage=sqlite:///nowhere/study.db"],
        "hydra.sweeper.storage must be a database that can be read and written, got sqlite:///nowhere/study.db: ",
    ),
]


@pytest.fixture(autouse=True)
def directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_mistakes_end_in_a_message(overrides: list[str], message: str) -> None:
    pathlib.Path("file").write_text("no database, and no directory\n")
    done = commands.run_here("explore", *overrides, *SMALL[: 0 if "workload=npz" in overrides else None])
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failing_mesh_does_not_lose_the_others(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    np.savez("masks.npz", fc_weights=rng.random((200, 30)) < 0.3, fc_activations=rng.random((1, 200)) < 0.5)
    masks = ("workload=npz", "workload.path=masks.npz")
    fixed = ("arch.pes=1", "arch.threads=1", "arch.lookahead=3", "arch.selector=in_order")
    balances = ("arch.intra_balance=true", "arch.inter_balance=true")
    search = ("--multirun", *masks, "hydra.sweep.dir=sweep", *fixed, *balances, "arch.rows=choice(1,2,300)")
    done = commands.run_here("explore", *search, "hydra.sweeper.n_trials=8", "seed=3")
    front = json.loads((tmp_path / "sweep" / "front.json").read_text())["trials"]
    assert {row["params"]["arch.rows"] for row in front} == {1, 2}, done.stderr
    check_front(front)
    Image.open(tmp_path / "sweep" / "front.png").verify()
    assert done.returncode == 1
    message = "multipliers must be at least those of the mesh, got 252 for 300 x 1 cores of 1 x 1"
    failed = done.stderr.partition("failed:\n")[2].splitlines()
    assert re.fullmatch(rf"  #\d .*arch.rows=300 .*: {message}\.", failed[0])
    assert failed[-2] == "Other meshes are tried in their place with:"

    again = commands.run_here("explore", *search, "hydra.sweeper.n_trials=2", "seed=3")
    assert again.returncode == 0, again.stderr
    assert re.search(r"the study resumes after \d trials; 0 are left", again.stdout)
    assert not list(tmp_path.rglob("error.txt"))
