"""Reports: exact numbers out, ratios that may not exist, tables that lose nothing."""

import dataclasses
import io
import json
import pathlib
import re
import sys

import numpy as np
import pytest
from rich.console import Console

from phantom_jax import Layer, Phantom2D, Report, simulate

RNG = np.random.default_rng(0)
CONV = Layer.conv(RNG.random((3, 3, 20, 12)) < 0.3, RNG.random((2, 14, 14, 20)) < 0.5, name="first")
DENSE = Layer.dense(RNG.random((300, 40)) < 0.2, RNG.random((2, 300)) < 0.4)
REPORT = simulate([CONV, DENSE], Phantom2D())


def printed(report: Report, width: int) -> str:
    output = io.StringIO()
    report.print(Console(file=output, width=width))
    return output.getvalue()


def test_names_and_types() -> None:
    assert [layer.name for layer in REPORT.layers] == ["first", "layer1"]
    for counted in (REPORT.cycles, REPORT.layers[0].cycles, REPORT.layers[0].effectual_macs, REPORT.stack["idle"]):
        assert counted.dtype == np.int64
        assert counted.shape == (2,)
    assert type(REPORT.layers[0].dense_cycles) is int
    assert type(REPORT.layers[0].dense_macs) is int


def test_totals_are_sums_over_layers() -> None:
    first, second = REPORT.layers
    np.testing.assert_array_equal(REPORT.cycles, first.cycles + second.cycles)
    np.testing.assert_array_equal(REPORT.effectual_macs, first.effectual_macs + second.effectual_macs)
    assert REPORT.dense_cycles == first.dense_cycles + second.dense_cycles
    assert REPORT.dense_macs == first.dense_macs + second.dense_macs == 14 * 14 * 180 * 12 + 300 * 40
    for component, slots in REPORT.stack.items():
        np.testing.assert_array_equal(slots, first.stack[component] + second.stack[component])


def test_to_dict_is_plain_and_complete() -> None:
    data = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))
    assert data == REPORT.to_dict()
    assert data["architecture"]["lookahead"] == 27
    layer, totals = data["layers"][0], data["totals"]
    assert layer["cycles"] == REPORT.layers[0].cycles.tolist()
    assert layer["weights_shape"] == [3, 3, 20, 12]
    assert (layer["kind"], layer["stream"], data["layers"][1]["kind"]) == ("conv", "positions", "dense")
    assert layer["weight_density"] == np.mean(CONV.weights)
    for image, cycles in enumerate(REPORT.cycles.tolist()):
        effectual = REPORT.effectual_macs[image]
        assert totals["speedup_over_mapped_dense"][image] == REPORT.dense_cycles / cycles
        # Ideal: each layer rounded up to whole cycles of 252 multipliers.
        ideal = -(-14 * 14 * 180 * 12 // 252) + -(-300 * 40 // 252)
        assert totals["speedup_over_ideal_dense"][image] == ideal / cycles
        assert totals["perfect_skipping_bound"][image] == REPORT.dense_macs / effectual
        assert totals["utilization"][image] == effectual / (cycles * 252)


def test_rows_and_frame_are_flat() -> None:
    rows = REPORT.rows()
    assert [(row["layer"], row["image"]) for row in rows] == [("first", 0), ("first", 1), ("layer1", 0), ("layer1", 1)]
    assert rows[1]["cycles"] == REPORT.layers[0].cycles[1]
    assert rows[1]["stack_idle"] == REPORT.layers[0].stack["idle"][1]
    assert rows[3]["utilization"] == REPORT.to_dict()["layers"][1]["utilization"][1]
    frame = REPORT.to_pandas()
    assert frame["cycles"].sum() == REPORT.cycles.sum()
    assert frame.columns.tolist() == list(rows[0])


def test_without_pandas_the_frame_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="needs pandas, which is not installed"):
        REPORT.to_pandas()


def test_ratios_without_a_denominator_are_none() -> None:
    report = simulate(Layer.dense(np.zeros((9, 2)), np.ones((1, 9))), Phantom2D())
    totals = report.to_dict()["totals"]
    for ratio in ("speedup_over_mapped_dense", "speedup_over_ideal_dense", "perfect_skipping_bound", "utilization"):
        assert totals[ratio] == [None]
    assert printed(report, 80).count(" - ") >= 8


def test_tables_are_whole_on_any_console() -> None:
    for width in (20, 80, 300):
        text = printed(REPORT, width)
        assert "…" not in text
        for value in (
            "first",
            "3x3 20>12 @14x14",
            "300>40",
            "along positions",
            "fragmentation",
            "inter_core",
            "mapped",
        ):
            assert value in text
        # A batch is shown by its mean, and by ratios of sums.
        assert "mean of 2 images" in text
        assert f"{REPORT.layers[0].cycles.mean():,.0f}" in text
        assert f"{2 * REPORT.dense_cycles / REPORT.cycles.sum():.2f}x" in text


def test_names_are_shown_as_they_are() -> None:
    for name in ("[/x]", "blocks[conv]", ":smile:", "a[bold]b"):
        report = simulate(Layer.dense(np.ones((9, 2)), np.ones((1, 9)), name=name), Phantom2D())
        assert printed(report, 80).count(name) == 2
    report = simulate(Layer.dense(np.ones((9, 2)), np.ones((1, 9)), name="two\nlines"), Phantom2D())
    assert printed(report, 80).count("two lines") == 2


def test_table_of_the_stack_adds_up_to_100() -> None:
    table = REPORT.tables()[1]
    shares = [sum(float(str(list(column.cells)[row])) for column in table.columns[1:]) for row in range(3)]
    np.testing.assert_allclose(shares, 100, atol=0.31)  # six components, rounded to 0.1


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), {})  # pyright: ignore[reportOptionalMemberAccess]
    assert "3x3 64>128 @14x14" in capsys.readouterr().out


def test_long_names_lose_their_middle_in_tables_alone() -> None:
    name = "model/" + "block/" * 60 + "conv1"
    report = simulate([dataclasses.replace(DENSE, name=name)], Phantom2D())
    shown = printed(report, width=80)
    assert shown.count(f"{name[:23]}...{name[-23:]} ") == 2
    assert max(map(len, shown.splitlines())) < 180
    assert report.to_dict()["layers"][0]["name"] == report.rows()[0]["layer"] == name
