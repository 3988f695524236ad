"""Comparison of two runs."""

import json
import pathlib

import numpy as np
import pytest

from experiments import diff
from phantom_jax import Layer, Phantom2D, simulate

RNG = np.random.default_rng(0)
LAYERS = [
    Layer.dense(RNG.random((90, 40)) < 0.4, RNG.random((2, 60, 90)) < 0.5, name="large"),
    Layer.dense(RNG.random((90, 4)) < 0.4, RNG.random((2, 3, 90)) < 0.5, name="small"),
    Layer.dense(np.ones((9, 1)), np.ones((2, 1, 9)), name="same"),
]


def save(directory: pathlib.Path, arch: Phantom2D, layers: list[Layer], **more: object) -> str:
    directory.mkdir()
    results = {"schema_version": 1, "seed": 0, "workload": {"name": "w"}, **simulate(layers, arch).to_dict(), **more}
    (directory / "results.json").write_text(json.dumps(results))
    return str(directory)


def test_most_changed_first_and_total_last(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    archs = Phantom2D(), Phantom2D(lookahead=4)
    first, second = (save(tmp_path / name, arch, LAYERS) for name, arch in zip("ab", archs, strict=True))
    rows = diff.compare(diff.load(first), diff.load(second + "/results.json"))
    assert [row["name"] for row in rows] == ["large", "small", "same", "total"]
    for row, report in zip([rows[0], rows[-1]], [[LAYERS[0]], LAYERS], strict=True):
        for index, arch in enumerate(archs):
            expected = simulate(report, arch)
            assert row["cycles"][index] == expected.cycles.mean()
            for component, share in expected.shares.items():
                assert row["shares"][component][index] == pytest.approx(share)
    assert diff.differing(diff.load(first), diff.load(second)) == {"arch.lookahead": (27, 4)}
    diff.main([first, second])
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1 if printed.splitlines()[-1].strip() else -2].split()[0] == "total"
    assert "\u2026" not in printed


def test_layers_of_one_run_alone_are_kept(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = save(tmp_path / "a", Phantom2D(), LAYERS[:2])
    second = save(tmp_path / "b", Phantom2D(), LAYERS[1:])
    rows = {row["name"]: row["cycles"] for row in diff.compare(diff.load(first), diff.load(second))}
    assert rows["large"][1] is None
    assert rows["same"][0] is None
    diff.main([first, second])
    assert " - " in capsys.readouterr().out


def test_runs_of_training_are_compared_by_their_settings(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(name: str, cycles: float, data: str, **more: object) -> str:
        settings = {
            "arch": {"rows": 7},
            "seed": 0,
            "model": more,
            "sparsity": {"cycles": cycles},
            "tracking": {"a": name},
        }
        results = {"schema_version": 1, "settings": settings, "data_sha256": data, "phases": []}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results | simulate(LAYERS, Phantom2D()).to_dict()))
        return str(tmp_path / name)

    first, second = train("a", 0.1, "5e", width=8), train("b", 0.2, "5e", depth=3)
    expected = {"sparsity.cycles": (0.1, 0.2), "model.width": (8, None), "model.depth": (None, 3)}
    assert diff.differing(diff.load(first), diff.load(second)) == expected
    diff.main([first, second])
    printed = capsys.readouterr().out
    assert "b: model.width=None, sparsity.cycles=0.2, model.depth=3" in printed
    # Beside a run of simulate, what only one of the commands has says nothing.
    counted = save(tmp_path / "c", Phantom2D(rows=3), LAYERS, settings={"arch": {"rows": 3}, "seed": 1, "figures": {}})
    assert diff.differing(diff.load(first), diff.load(counted)) == {"arch.rows": (7, 3)}
    (tmp_path / "b/results.json").write_text('{"schema_version": 1, "ratios": []}')
    with pytest.raises(SystemExit, match="holds no layers, so it is of another command"):
        diff.main([first, second])


def test_bad_runs(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = save(tmp_path / "good", Phantom2D(), LAYERS)
    old = save(tmp_path / "old", Phantom2D(), LAYERS, schema_version=0)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/results.json").write_text('{"layers": ')
    for bad, message in [
        (str(tmp_path), "must be an output directory with results.json: No such file"),
        (str(tmp_path / "broken"), "must be results of experiments.simulate or experiments.train in JSON"),
        (old, "must be results of schema version 1, got version 0"),
    ]:
        with pytest.raises(SystemExit, match=message):
            diff.main([good, bad])
    (tmp_path / "broken/results.json").write_text('{"schema_version": 1, "layers": [{}]}')
    with pytest.raises(SystemExit, match="must hold whole results of a run"):
        diff.main([good, str(tmp_path / "broken")])
    with pytest.raises(SystemExit):
        diff.main([good])
    assert "the following arguments are required: B" in capsys.readouterr().err
