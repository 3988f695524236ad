"""Sweeps from the command line: the same on all launchers; they report what failed, and resume after a kill."""

import contextlib
import hashlib
import pathlib
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import phantom_jax
from experiments.harness import cases, command, provenance
from experiments.harness.files import write_json
from experiments.harness.run import Run
from experiments.harness.sweeps import command_again
from phantom_jax import Phantom2D, simulate
from phantom_jax.workloads import read_npz
from tests.experiments import commands

ARCH = ("arch.pes=1", "arch.threads=1", "arch.lookahead=3")  # compiles in a second
OPTIONS = ("workload=npz", "workload.path=masks.npz", "figures.write=false", *ARCH)
SWEEP = ("--multirun", *OPTIONS, "hydra.sweep.dir=sweep")
OF_HOST = ("versions", "git_revision", "git_modified")
Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def masks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A small file of masks, where the test runs."""
    monkeypatch.chdir(tmp_path)
    return save_masks(tmp_path / "masks.npz", seed=0)


def save_masks(path: pathlib.Path, seed: int) -> pathlib.Path:
    rng = np.random.default_rng(seed)
    np.savez(
        path,
        conv_weights=rng.random((3, 3, 8, 12)) < 0.4,
        conv_activations=rng.random((1, 10, 10, 8)) < 0.5,
        fc_weights=rng.random((200, 30)) < 0.3,
        fc_activations=rng.random((1, 200)) < 0.5,
    )
    return path


@contextlib.contextmanager
def composition() -> Iterator[Compose]:
    """Hydra's composition of the main command, in this process; its own part is that of the current run."""

    def compose_and_set(*overrides: str) -> DictConfig:
        config = compose("simulate", [*OPTIONS, "tracking=none", *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])

    with initialize_config_dir(version_base="1.3", config_dir=command.CONFIG_PATH):
        yield compose_and_set
    HydraConfig.instance().cfg = None


@pytest.fixture
def composed() -> Iterator[Compose]:
    with composition() as compose_and_set:
        yield compose_and_set


LAUNCHERS = ["basic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("joblib", "ray", "submitit_local"))]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_all_launchers_give_the_same_beside_a_run_that_fails(
    tmp_path: pathlib.Path, masks: pathlib.Path, launcher: str
) -> None:
    options = [f"hydra/launcher={launcher}"]
    environment = {}
    swept = ["arch.rows=2,0,7", "tracking=none"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as short:  # paths of Ray's sockets must be
        if launcher == "ray":
            pytest.importorskip("hydra_plugins.hydra_ray_launcher")
            options += ["+hydra.launcher.ray.init.num_cpus=2", f"+hydra.launcher.ray.init._temp_dir={short}"]
            environment = {"HOME": str(tmp_path)}  # where it keeps a token
        if launcher == "joblib":
            options += ["hydra.launcher.n_jobs=2"]
        if launcher == "submitit_local":
            pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
        if launcher == "basic":
            done = commands.run_here("simulate", *SWEEP, *options, *swept)
        else:
            done = commands.run("simulate", tmp_path, *SWEEP, *options, *swept, environment=environment)
    assert done.returncode == 1, done.stderr
    stderr = re.sub(r"^\x1b\[36m\(_run_job.*\n", "", done.stderr, flags=re.MULTILINE)  # Ray's echo may come last
    assert re.search(
        r"1 run failed:\n  #1 .*arch.rows=0 .*: arch.rows must be a positive integer, got 0.\n"
        rf"These alone run again with:\n  .* hydra.sweep.dir={re.escape(str(tmp_path / 'sweep'))}\n$",
        stderr,
    )
    assert "Traceback" not in done.stderr
    (report,) = tmp_path.rglob("error.txt")
    assert report.parent == tmp_path / "sweep" / "1"
    assert "Traceback" in report.read_text()
    found = commands.results(tmp_path / "sweep")
    assert found.keys() == {"0", "2"}
    for name, rows in (("0", 2), ("2", 7)):
        digest = hashlib.sha256(masks.read_bytes()).hexdigest()
        with composition() as composed:
            settings = composed(f"arch.rows={rows}")
        assert {key: value for key, value in found[name].items() if key not in OF_HOST} == {
            "schema_version": 1,
            "settings": OmegaConf.to_container(settings, resolve=True),
            "inputs": {"workload.path.sha256": digest},
            "workload": {"name": "masks", "path": "masks.npz", "sha256": digest, "images": 1},
            "seed": None,
            **simulate(read_npz(masks), Phantom2D(**settings.arch)).to_dict(),
        }


def test_a_sweep_that_is_started_again_repeats_what_failed_alone(tmp_path: pathlib.Path, masks: pathlib.Path) -> None:
    (tmp_path / "sweep" / "old").mkdir(parents=True)
    (tmp_path / "sweep" / "old" / "error.txt").write_text("#7 of an earlier try\n")
    (tmp_path / "sweep" / "error.txt").write_text("not of a run\n")
    swept = ["arch.rows=1,2", "workload.path=masks.npz,later.npz"]
    failing = commands.run_here("simulate", *SWEEP, *swept)
    assert failing.returncode == 1
    assert re.findall("#(.) ", failing.stderr.partition("2 runs failed:")[2]) == ["2", "3"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sweep/*/results.json")}
    assert [path.parent.name for path in sorted(before)] == ["0", "1"]
    masks.rename("later.npz")
    save_masks(masks, seed=0)
    done = commands.run_here("simulate", *SWEEP, *swept)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert done.stdout.count("The run is skipped.") == 2
    rows = {name: found["architecture"]["rows"] for name, found in commands.results(tmp_path / "sweep").items()}
    assert rows == {"0": 1, "1": 2, "2": 1, "3": 2}
    assert list(tmp_path.rglob("error.txt")) == [tmp_path / "sweep" / "error.txt"]


def test_a_command_that_runs_again_keeps_what_the_shell_and_hydra_read_otherwise() -> None:
    typed = [
        "python",
        "-m",
        "experiments.simulate",
        "--multirun",
        "seed=0,1",
        "hydra.sweep.dir=old",
        "model.stages=[[8]]",
    ]
    again = command_again(typed, "hydra.sweep.dir", "/a/new")
    assert again == "python -m experiments.simulate --multirun seed=0,1 'model.stages=[[8]]' hydra.sweep.dir=/a/new"
    again = command_again(["python", "resume=old", "hydra.run.dir=b"], "hydra.run.dir", "a", "resume=true")
    assert again == "python resume=true hydra.run.dir=a"
    again = command_again(["python"], "hydra.sweep.dir", "/it's new")
    assert shlex.split(again)[1:] == [r"hydra.sweep.dir='/it\'s new'"]


@pytest.mark.slow
def test_a_killed_sweep_resumes_and_repeats_nothing(tmp_path: pathlib.Path) -> None:
    swept = f"arch.rows={','.join(map(str, range(1, 21)))}"
    commands.kill_when((tmp_path / "sweep/1/results.json").exists, "simulate", tmp_path, *SWEEP, swept)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sweep/*/results.json")}
    assert 2 <= len(before) < 20
    done = commands.run("simulate", tmp_path, *SWEEP, swept, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert done.stdout.count("The run is skipped.") == len(before)
    rows = {name: found["architecture"]["rows"] for name, found in commands.results(tmp_path / "sweep").items()}
    assert rows == {str(number): number + 1 for number in range(20)}


def test_a_run_is_skipped_only_where_its_own_results_are(
    tmp_path: pathlib.Path, composed: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "output_directory", lambda: tmp_path)
    path = tmp_path / "results.json"

    def is_run(*overrides: str) -> bool:
        return Run("simulate", composed("hydra.mode=MULTIRUN", *overrides)).finished() is None

    assert is_run()  # there are no results
    write_json(path, provenance.collect(composed()))
    assert not is_run()
    assert capsys.readouterr().out == f"Note: {path} holds these results already. The run is skipped.\n"
    assert not is_run("tracking=wandb")
    assert is_run("arch.rows=3", "figures.layer=fc")
    differs = "holds other results: arch.rows 7, now 3; figures.layer None, now fc. The command runs."
    assert differs in capsys.readouterr().out
    assert is_run("hydra.mode=RUN")  # a single run is always made

    monkeypatch.setattr(phantom_jax, "__version__", "9")
    assert is_run()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "output_directory", lambda: tmp_path)
    save_masks(tmp_path / "masks.npz", seed=1)
    assert is_run()
    assert "holds other results: workload.path.sha256" in capsys.readouterr().out
    for foreign in ("{", "[]", '{"cycles": 3}'):
        path.write_text(foreign)
        assert is_run()


def test_inputs_are_known_by_their_contents(tmp_path: pathlib.Path) -> None:
    config = OmegaConf.create({"data": {"dir": "pictures"}, "networks": ["vgg16/han"]})
    (tmp_path / "pictures/cats").mkdir(parents=True)
    seen = []
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"2")):
        (tmp_path / "pictures/cats" / name).write_bytes(content)
        seen.append(provenance.inputs(config)["data.dir.sha256"])
    assert len({*seen, provenance.inputs(config)["data.dir.sha256"]}) == 3


def test_a_failing_case_does_not_lose_the_others(tmp_path: pathlib.Path) -> None:
    path, measured = tmp_path / "cases.jsonl", []

    def collect(broken: tuple[int, ...]) -> list[dict[str, int]]:
        known = {("case", case["x"]): case for case in cases.resume(path, {"of": "test"}, dict)}

        def measure(x: int) -> dict[str, int]:
            measured.append(x)
            if x in broken:
                raise {1: ValueError("x must not be 1."), 3: KeyError("three")}[x]
            return {"x": x}

        planned = [(("case", x), lambda x=x: measure(x)) for x in range(5)]
        return cases.collect(path, planned, known, lambda case: case, lambda key: f"x {key[1]}")

    with pytest.raises(ValueError, match="2 of 5 cases failed") as error:
        collect((1, 3))
    assert str(error.value).splitlines()[1:] == ["  x 1: x must not be 1.", "  x 3: KeyError: 'three'"]
    assert str(path) in str(error.value)
    assert measured == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="1 of 5 cases failed"):
        collect((3,))
    assert collect(()) == [{"x": x} for x in range(5)]
    assert measured[5:] == [1, 3, 3]


def test_a_line_of_cases_that_is_garbage_is_left_out_with_a_note(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b'{"of": "test"}\n{"x": 1}\n{"x": {"x": 2}\n\xff\n{"x": 3}\n{"x"')
    assert cases.resume(path, {"of": "test"}, dict) == [{"x": 1}, {"x": 3}]
    noted = f"Note: {path}: lines that cannot be read are left out, and their cases measured again: 2.\n"
    assert capsys.readouterr().out == noted
    assert path.read_text() == '{"of": "test"}\n{"x": 1}\n{"x": 3}\n'


def test_cases_that_a_full_disk_does_not_take_name_their_file() -> None:
    path = pathlib.Path("/dev/full")
    if not path.exists():
        pytest.skip("there is no such device here")
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        cases.collect(path, [((1,), dict)], {}, lambda case: case, str)


@pytest.mark.parametrize("sweeper", ["basic", "optuna"])
def test_a_bug_in_a_run_of_a_sweep_is_reported_with_its_traceback(
    tmp_path: pathlib.Path,
    composed: Compose,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sweeper: str,
) -> None:
    config = composed("hydra.mode=MULTIRUN", f"hydra/sweeper={sweeper}", "hydra.job.num=3")
    monkeypatch.setattr(command, "output_directory", lambda: tmp_path)
    wrapped = command.guarded(lambda _: {}["missing"])
    if sweeper == "basic":  # which would start no other runs
        assert wrapped(config) is None
    else:  # which decides how many may fail
        with pytest.raises(command.RunFailedError, match="KeyError: 'missing'"):
            wrapped(config)
    assert "Traceback" in capsys.readouterr().err
    first, _, *rest = (tmp_path / "error.txt").read_text().splitlines()
    assert re.fullmatch(r"#3 .*: KeyError: 'missing'", first)
    assert rest[0].startswith("Traceback")
    command.guarded(lambda _: None)(config)
    assert not (tmp_path / "error.txt").exists()


def test_a_missing_launcher_is_reported_with_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise HydraException("Could not find 'hydra/launcher/submitit_slurm'")

    with pytest.raises(SystemExit):
        command.run(main)
    assert "needs the extra cluster: scripts/setup all, or pip install phantom-jax[cluster]" in capsys.readouterr().err


def test_options_of_slurm_compose(composed: Compose) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    options = ("partition=gpu", "gpus_per_node=1", "timeout_min=240", "cpus_per_task=8", "array_parallelism=4")
    composed("hydra/launcher=submitit_slurm", *(f"hydra.launcher.{option}" for option in options))
    launcher = HydraConfig.get().launcher
    assert (launcher.partition, launcher.gpus_per_node, launcher.timeout_min) == ("gpu", 1, 240)
