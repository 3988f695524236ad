"""The comparison and the validation: ratios by hand, and the commands as their users meet them, on small pictures."""

import csv
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.compare import designs, measure, summary
from experiments.compare import options as compare_cases
from experiments.compare.cases import LayerCycles, NetworkRun
from experiments.harness import command, provenance
from phantom_jax import Layer, Phantom2D, simulate, workloads
from phantom_jax.baselines import SCNN, SparTen
from tests.experiments import commands

SMALL = (
    "size=32",
    "mask_kinds=[channel]",
    "seeds=[3]",
    "sizes=[equal]",
    "map.densities=[0.2,0.6]",
    "map.layer=vgg16/conv3_2",
)


def made(design: str, size: str, seed: int, cycles: tuple[int, ...], supported: tuple[bool, ...]) -> NetworkRun:
    layers = tuple(
        LayerCycles(f"l{index}", count, 10, 5, is_supported, {"effectual": 5})
        for index, (count, is_supported) in enumerate(zip(cycles, supported, strict=True))
    )
    return NetworkRun("net/table", "iid", seed, design, size, 252, 252, layers)


def test_ratios_by_hand() -> None:
    both, first = (True, True), (True, False)
    runs = [
        made("phantom", "published", 0, (10, 20), both),
        made("scnn", "equal", 0, (20, 100), first),
        made("phantom", "published", 1, (10, 10), both),
        made("scnn", "equal", 1, (40, 20), first),
    ]
    (row,) = summary.ratio_rows(runs)
    assert (row["rival"], row["size"], row["seeds"], row["layers"], row["supported_layers"]) == (
        "scnn",
        "equal",
        2,
        2,
        1,
    )
    assert row["all"] == pytest.approx((120 / 30 + 60 / 20) / 2)
    assert row["all_spread"] == pytest.approx((120 / 30 - 60 / 20) / 2)
    assert row["supported"] == pytest.approx((20 / 10 + 40 / 10) / 2)
    assert row["mean_of_layers"] == pytest.approx(((2 + 5) / 2 + (4 + 2) / 2) / 2)
    assert row["paper"] == 4.1


def test_what_has_no_cycles_or_no_supported_layer_has_no_ratio() -> None:
    runs = [made("phantom", "published", 0, (0,), (True,)), made("sparten", "equal", 0, (5,), (False,))]
    (row,) = summary.ratio_rows(runs)
    assert [row[name] for name in summary.RATIOS] == [None, None, None]
    assert len(summary.tables([row], summary.ablation(runs))) == 2


def test_variants_are_relative_to_the_accelerator() -> None:
    variants = designs.variants(Phantom2D(rows=3))
    assert variants["phantom"] == Phantom2D(rows=3)
    assert variants["phantom, cv, in_order"] == Phantom2D(rows=3, lookahead=9, selector="in_order")
    assert variants["phantom, no balance"] == Phantom2D(rows=3, intra_balance=False, inter_balance=False)
    assert len(variants) == 10
    runs = [
        made("phantom", "published", 0, (10, 10), (True,) * 2),
        made("phantom, x", "published", 0, (20, 5), (True,) * 2),
    ]
    assert [row["relative"] for row in summary.ablation(runs)] == [1, 1.25]


def test_runs_hold_what_reports_say() -> None:
    rng = np.random.default_rng(0)
    layers = [
        Layer.conv(rng.random((3, 3, 8, 12)) < 0.4, rng.random((1, 9, 9, 8)) < 0.5, strides=2, name="conv"),
        Layer.dense(rng.random((70, 30)) < 0.3, rng.random((1, 70)) < 0.5, name="fc"),
    ]
    names = {"network": "net/table", "mask_kind": "iid", "seed": 0, "name": "x", "size": "equal"}
    for design in (Phantom2D(), SCNN.scaled(100)):
        found = measure.run_design(layers, design, **names)
        report = simulate(layers, design) if isinstance(design, Phantom2D) else design.simulate(layers)
        assert [layer.cycles for layer in found.layers] == [int(layer.cycles[0]) for layer in report.layers]
        assert [layer.supported for layer in found.layers] == [layer.supported for layer in report.layers]
        for layer in found.layers:
            assert sum(layer.stack.values()) == layer.cycles * found.multipliers
    point = measure.measure_point(layers[0], Phantom2D(), seed=0, weight_density=0.4, activation_density=0.5)
    assert point.cycles["phantom"] == int(simulate(layers[0], Phantom2D()).cycles[0])
    assert point.cycles["sparten"] == int(SparTen.scaled(252).simulate(layers[0]).cycles[0])


@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of a comparison of two files of two images each: of masks, and of a network with its inputs."""
    monkeypatch.chdir(tmp_path)
    commands.save_onnx(tmp_path)
    np.savez("masks.npz", fc_weights=np.eye(6, 3), fc_activations=np.ones((2, 6)))
    return settings_of("networks=[masks.npz,net.onnx]", "inputs=inputs.npz", "map.densities=[]", "sizes=[equal]")


def settings_of(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        options: Any = OmegaConf.to_container(compose("compare", list(overrides)))
    return options


def test_files_of_masks_and_onnx_networks_are_compared(files: dict[str, Any]) -> None:
    settings = compare_cases.read_settings(files)
    planned = {key: count for key, count in compare_cases.plan(settings, Phantom2D()) if key[4] in ("phantom", "dense")}
    assert [key[1:4] for key in planned][::2] == [
        ("masks.npz", f"file {digest('masks.npz')}", None),
        ("net.onnx", f"file {digest('net.onnx')} {digest('inputs.npz')}", None),
    ]
    runs: list[Any] = [count() for count in planned.values()]
    report = simulate(workloads.read_npz("masks.npz"), Phantom2D())
    for run in runs[::2]:
        (layer,) = run.layers
        assert (layer.name, layer.cycles) == ("fc", report.cycles.sum())
        assert layer.effectual_macs == report.layers[0].effectual_macs.sum()
        assert layer.dense_macs == 2 * 6 * 3
        assert sum(layer.stack.values()) == layer.cycles * run.multipliers
    rows = summary.ratio_rows(runs)
    assert [row["all"] for row in rows] == [2 / report.cycles.sum()] * 2
    (note,) = compare_cases.notes(settings)
    assert note.startswith("net.onnx: scores (MatMul of (2, 3) and (3, 4))")


def digest(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:8]


def test_a_comparison_of_files_resumes_and_counts_what_changed(files: dict[str, Any], tmp_path: pathlib.Path) -> None:
    def keys() -> set[Any]:
        return {key for key, _ in compare_cases.plan(compare_cases.read_settings(files), Phantom2D())}

    def identity() -> dict[str, Any]:
        return {"size": 224, **provenance.inputs(OmegaConf.create(files))}

    assert set(identity()) == {
        "size",
        "networks.masks.npz.sha256",
        "networks.net.onnx.sha256",
        "inputs.sha256",
    }
    before, path = keys(), tmp_path / "cases.jsonl"
    case = NetworkRun("masks.npz", f"file {digest('masks.npz')}", None, "scnn", "equal", 252, 252, ())
    path.write_text(f'{{"size": 224}}\n{json.dumps(compare_cases.to_dict(case))}\n')
    assert set(compare_cases.resume(path, identity())) <= before
    np.savez("masks.npz", fc_weights=np.ones((6, 3)), fc_activations=np.ones((2, 6)))
    after = keys()
    assert {key[1] for key in before - after} == {"masks.npz"}
    assert not set(compare_cases.resume(path, identity())) & after


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"networks": ["nowhere.npz"]}, "networks[0] must name an .npz file, got 'nowhere.npz', which is missing"),
        ({"networks": ["vgg16/han", "nowhere.onnx"]}, "networks[1] must name an ONNX file, got 'nowhere.onnx'"),
        ({"inputs": None}, "inputs must name an .npz file with an array for each input of net.onnx, got null"),
        ({"inputs": "nowhere.npz"}, "inputs must name an .npz file, got 'nowhere.npz', which is missing"),
        ({"inputs": "masks.npz"}, "inputs hold 'fc_weights', which the model does not know"),
        ({"networks": ["masks.npy"]}, "or an .npz or .onnx file; got 'masks.npy'"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(
    files: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold brackets
        compare_cases.read_settings(files | changed)
    assert message in str(error.value)


BOTH = (["vgg16/han", "mobilenet_v1/sparseml"], ("(13/16)", "(22/28)"))


@pytest.mark.parametrize(
    ("networks", "supported"), [(["vgg16/han"], ("(13/16)",)), pytest.param(*BOTH, marks=pytest.mark.slow)]
)
def test_a_comparison_that_is_started_again_resumes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, networks: list[str], supported: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = (*SMALL, f"networks=[{','.join(networks)}]", "hydra.run.dir=out")
    done = commands.run_here("compare", *options)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "out"
    assert done.stdout.splitlines()[-1] == str(directory)
    for text in ("Speed-up of Phantom-2D", *supported, "phantom, no intra_balance", "eyeriss_v2"):
        assert text in done.stdout
    for name in ("speedups", "ablation", "stacks", "map"):
        assert (directory / f"{name}.png").stat().st_size > 10_000
    results = json.loads((directory / "results.json").read_text())
    assert results["paper"] == {"dense": 12.0, "scnn": 4.1, "sparten": 1.98, "eyeriss_v2": 2.36}
    with (directory / "results.csv").open() as file:
        assert [row["rival"] for row in csv.DictReader(file)] == [row["rival"] for row in results["ratios"]]
    _, *logged, end = (json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines())
    assert [next(iter(record.values())) for record in logged[:2]] == ["ratios", "ablation"]
    assert logged[0]["rows"] == results["ratios"]
    summary = logged[2]["summary"]
    assert list(summary.values()) == [row["all"] for row in results["ratios"]]
    assert "scnn/equal/vgg16/han/channel" in summary
    assert end == {"failed": False}
    runs = [case for case in results["cases"] if case["case"] == "run"]
    assert len(runs) == len(networks) * (1 + 5 + 9)  # the accelerator, rivals, variants
    for case in runs:
        for layer in case["layers"]:
            assert sum(layer["stack"].values()) == layer["cycles"] * case["multipliers"]

    # Again, from a file that was cut in the middle of its last line: the same in all that was counted.
    kept = directory / "cases.jsonl"
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:-3]) + lines[-3][:20])
    again = commands.run_here("compare", *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert json.loads((directory / "results.json").read_text())["cases"] == results["cases"]
    refused = commands.run_here("compare", *SMALL, "arch.rows=3", "hydra.run.dir=out")
    assert refused.returncode == 1
    assert "holds cases that were measured with other settings: arch.rows 7, now 3" in refused.stderr


def test_the_seed_gives_the_same_totals(tmp_path: pathlib.Path) -> None:
    settings = compare_cases.Settings(("mobilenet_v1/sparseml",), 32, ("channel",), (5,), ("equal",), "vgg16/fc8", ())
    names = ("phantom", "scnn", "sparten")

    def totals(seed: int) -> list[int]:
        planned = compare_cases.plan(dataclasses.replace(settings, seeds=(seed,)), Phantom2D())
        runs: list[Any] = [count() for key, count in planned if key[4] in names]
        return [sum(layer.cycles for layer in run.layers) for run in runs]

    assert totals(5) == totals(5)
    assert all(one != other for one, other in zip(totals(5), totals(6), strict=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["networks=[vgg16]"], "networks[0], after vgg16/, must be one of han, scnn, got ''"),
        (["networks=[lenet/x]"], "networks[0] must be NETWORK/DENSITIES, of a network of vgg16"),
        (["networks=[]"], "networks must be a list that is not empty, got []"),
        (["seeds=[-1]"], "seeds[0] must be a non-negative integer, got -1"),
        (["sizes=[small]"], "sizes[0] must be one of published, equal, got 'small'"),
        (["mask_kinds=iid"], "mask_kinds must be a list that is not empty, got 'iid'"),
        (["map.layer=vgg16/conv9"], "map.layer, after vgg16/, must be one of conv1_1"),
        (["map.densities=[0]"], "map.densities[0] must be a number above 0, up to 1, got 0"),
        (["size=33"], "size must be a multiple of 32, got 33"),
        (["~map"], "option map.layer is missing"),
        (["map=3"], "map must be a group of options, got 3"),
        (["~seeds"], "option seeds is missing"),
        (["+color=red"], "there is no option color; the options of this command are arch, tracking, networks"),
    ],
)
def test_bad_settings_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold brackets
        compare_cases.read_settings(settings_of(*overrides))
    assert message in str(error.value)


@pytest.mark.slow
def test_validation_prints_published_figures_beside_the_models(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = commands.run_here("validate", "size=32")
    assert done.returncode == 0, done.stderr
    checks = json.loads((pathlib.Path(done.stdout.splitlines()[-1]) / "results.json").read_text())["checks"]
    published = {3.52, 2.37, 2.19, 0.79, 24.0, 1.7, 2.6, 0.59, 0.35, 1.11, 4.7, 1.8, 3.0, 0.45}
    assert {check["published"] for check in checks} == published
    assert all(check["model"] > 0 and check["source"] and check["assumed"] for check in checks)
    for text in ("Baselines beside published figures", "Where the figures come from", "those between them on a line"):
        assert text in done.stdout
    log = (pathlib.Path(done.stdout.splitlines()[-1]) / "log.jsonl").read_text().splitlines()
    assert json.loads(log[1])["rows"] == checks
    assert json.loads(log[2])["summary"]["checks"] == len(checks)


def test_mistakes_at_the_validation_end_in_a_message(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = commands.run_here("validate", "size=7", "hydra.run.dir=refused")
    assert (tmp_path / "refused/log.jsonl").read_text().splitlines()[1:] == ['{"failed": true}']
    assert refused.returncode == 1
    assert "size must be a multiple of 32, got 7" in refused.stderr
    unknown = commands.run_here("validate", "+color=red")
    assert "there is no option color; the options of this command are tracking, size, seed" in unknown.stderr
