"""Every baseline against its scalar reference, stacks that sum, what all designs have in common, bad input."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D, simulate
from phantom_jax.baselines import SCNN, Dense, Design, EyerissV2, SparTen
from phantom_jax.baselines.design import all_ones
from tests import cases
from tests.reference import baselines as reference

# Small arrays, so that small layers fill them, and the published ones.
SCNNS = (
    SCNN(),
    SCNN(barrier="channel", bank_conflicts=True, accumulators=6144),
    SCNN(bank_conflicts=True, pe_grid=(2, 3), accumulators=16),
    SCNN(barrier="channel", pe_grid=(3, 1), weights_per_step=2, activations_per_step=3, accumulators=2),
    SCNN(bank_conflicts=True, pe_grid=(1, 2), weights_per_step=3, activations_per_step=1, banks=7),
)
SPARTENS = (
    SparTen(),
    SparTen(clusters=3, units=4, chunk=16),
    SparTen(clusters=2, units=3, chunk=5, greedy_balance=False),
    SparTen(clusters=1, units=1, chunk=1),
)
EYERISSES = (
    EyerissV2(),
    EyerissV2(clusters=1, pes_per_cluster=1, macs_per_pe=1),
    EyerissV2(clusters=3, pes_per_cluster=4, macs_per_pe=2, psums=3, weights=7),
    EyerissV2(clusters=2, pes_per_cluster=3, macs_per_pe=3, psums=2, weights=1, barrier="layer"),
)
DESIGNS = (Dense(), Dense(arch=Phantom2D()), SCNN(), SparTen(), EyerissV2())

CONV = Layer.conv(np.ones((3, 3, 4, 6)), np.ones((2, 8, 8, 4)), name="conv")


def wrong(value: Any) -> Any:
    """What the types forbid."""
    return value


def check(design: Design, layer: Layer, padding: Any, expected: Any) -> None:
    """Compares all images of a layer with the reference, and the cycles of masks of ones."""
    counted = design.simulate(layer).layers[0]
    for image in range(layer.batch):
        wanted = expected(cases.problem(layer, image, padding), design)
        got = {"cycles": int(counted.cycles[image])} | {
            part: int(slots[image]) for part, slots in counted.stack.items() if part != "effectual"
        }
        assert got == wanted
        assert counted.stack["effectual"][image] == reference.effectual(cases.problem(layer, image, padding))
    assert counted.dense_cycles == expected(cases.problem(all_ones(layer), 0, padding), design)["cycles"]
    np.testing.assert_array_equal(sum(counted.stack.values()), counted.cycles * counted.multipliers)


def is_flat(drawn: tuple[Layer, object]) -> bool:
    return len(drawn[0].strides) < 3


@given(cases.layers().filter(is_flat), st.sampled_from(SCNNS))
def test_scnn_is_the_reference(drawn: tuple[Layer, object], design: SCNN) -> None:
    check(design, *drawn, reference.scnn)


@given(cases.layers(), st.sampled_from(SPARTENS))
def test_sparten_is_the_reference(drawn: tuple[Layer, object], design: SparTen) -> None:
    check(design, *drawn, reference.sparten)


@given(cases.layers(), st.sampled_from(EYERISSES))
def test_eyeriss_v2_is_the_reference(drawn: tuple[Layer, object], design: EyerissV2) -> None:
    check(design, *drawn, reference.eyeriss_v2)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: type(design).__name__)
def test_reports_have_the_form_of_the_exact_model(design: Design) -> None:
    rng = np.random.default_rng(0)
    layers = [
        Layer.conv(rng.random((3, 3, 8, 12)) < 0.4, rng.random((3, 9, 9, 8)) < 0.5, name="conv"),
        Layer.dense(rng.random((70, 30)) < 0.3, rng.random((3, 70)) < 0.5),
    ]
    report, exact = design.simulate(iter(layers)), simulate(layers, Phantom2D())
    assert [layer.name for layer in report.layers] == ["conv", "layer1"]
    np.testing.assert_array_equal(report.effectual_macs, exact.effectual_macs)
    assert report.dense_macs == exact.dense_macs
    for layer, same in zip(report.layers, exact.layers, strict=True):
        assert (layer.row_axis, layer.stream) == (None, None)
        assert (layer.weight_density, layer.activation_density) == (same.weight_density, same.activation_density)
        assert {array.dtype for array in (layer.cycles, *layer.stack.values())} == {np.dtype(np.int64)}
        assert layer.cycles.shape == (3,)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()
    assert report.to_dict()["architecture"]["design"] == type(design).__name__
    report.print()
    assert hash(design) == hash(dataclasses.replace(design))


@pytest.mark.parametrize(
    ("design", "conv", "strided", "depthwise", "dilated", "dense"),
    [
        (Dense(), True, True, True, True, True),
        (SCNN(), True, False, True, False, False),
        (SparTen(), True, True, True, True, False),
        (EyerissV2(), True, True, True, True, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_published_designs_support(
    design: Design, conv: bool, strided: bool, depthwise: bool, dilated: bool, dense: bool
) -> None:
    weights, activations = np.ones((3, 3, 4, 4)), np.ones((1, 8, 8, 4))
    layers = [
        Layer.conv(weights, activations),
        Layer.conv(weights, activations, strides=2),
        Layer.conv(np.ones((3, 3, 1, 4)), activations, feature_group_count=4),
        Layer.conv(weights, activations, kernel_dilation=2),
        Layer.dense(np.ones((9, 4)), np.ones((1, 9))),
    ]
    report = design.simulate(layers)
    assert [layer.supported for layer in report.layers] == [conv, strided, depthwise, dilated, dense]
    assert [row["supported"] for row in report.rows()] == [conv, strided, depthwise, dilated, dense]


@pytest.mark.parametrize(
    ("design", "sides", "array"),
    [
        (SCNN.scaled(), (4, 4), 256),
        (SCNN.scaled(1024), (8, 8), 1024),
        (SparTen.scaled(), (14, 18), 252),
        (SparTen.scaled(1024), (32, 32), 1024),
        (EyerissV2.scaled(), (14, 9), 252),
        (EyerissV2.scaled(384), (16, 12), 384),
        (EyerissV2.scaled(5), (2, 1), 4),
    ],
)
def test_scaled_arrays_are_the_nearest(design: Any, sides: tuple[int, int], array: int) -> None:
    fields = [value for value in dataclasses.astuple(design)[1:] if not isinstance(value, str | bool)]
    assert sides == (design.pe_grid if isinstance(design, SCNN) else tuple(fields[:2]))
    assert design.array_multipliers == array


def test_scaled_cycles_are_those_of_the_wanted_multipliers() -> None:
    rng = np.random.default_rng(0)
    layer = Layer.conv(rng.random((3, 3, 16, 20)) < 0.4, rng.random((2, 20, 20, 16)) < 0.5)
    built, scaled = SCNN(pe_grid=(4, 4)).simulate(layer), SCNN.scaled(252).simulate(layer)
    assert scaled.multipliers == 252
    assert scaled.to_dict()["architecture"]["array_multipliers"] == 256
    for had, has in zip(built.cycles.tolist(), scaled.cycles.tolist(), strict=True):
        assert has == -(-had * 256 // 252)  # rounded up
    np.testing.assert_array_equal(scaled.stack["rounding"], scaled.cycles * 252 - built.cycles * 256)
    assert scaled.dense_cycles == -(-built.dense_cycles * 256 // 252)
    np.testing.assert_array_equal(sum(scaled.layers[0].stack.values()), scaled.cycles * 252)


def test_dense_arrays_are_filled_or_mapped() -> None:
    ideal, mapped = (design.simulate(CONV).layers[0] for design in (Dense(multipliers=100), Dense(arch=Phantom2D())))
    assert ideal.cycles.tolist() == [-(-8 * 8 * 9 * 4 * 6 // 100)] * 2  # positions, kernel, channels, filters
    assert mapped.cycles.tolist() == [simulate(CONV, Phantom2D()).dense_cycles] * 2
    for layer in (ideal, mapped):
        np.testing.assert_array_equal(sum(layer.stack.values()), layer.cycles * layer.multipliers)
    # Padding makes zeros: 9 taps meet all of the 8x8 inputs but for a row or a column each way.
    assert ideal.stack["effectual"].tolist() == [4 * 6 * (8 + 7 + 7) ** 2] * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(multipliers=0), "multipliers must be a positive integer, got 0"),
        (lambda: Dense(multipliers=9, arch=Phantom2D()), "multipliers must be None where arch gives them, got 9"),
        (lambda: Dense(arch=wrong("phantom")), "arch must be a Phantom2D, got 'phantom'"),
        (lambda: SCNN(barrier="layer"), "barrier must be one of group, channel, got 'layer'"),
        (lambda: SCNN(bank_conflicts=wrong(1)), "bank_conflicts must be true or false, got 1"),
        (lambda: SCNN(pe_grid=wrong(8)), "pe_grid must be a pair of positive integers, got 8"),
        (lambda: SCNN(pe_grid=(8, 0)), r"pe_grid\[1\] must be a positive integer, got 0"),
        (lambda: SCNN(accumulators=wrong(2.5)), "accumulators must be a positive integer, got 2.5"),
        (lambda: SCNN(bank_conflicts=True, weights_per_step=17), "bank_conflicts must be false with more than 64"),
        (lambda: SCNN.scaled(0), "multipliers must be a positive integer, got 0"),
        (lambda: SCNN(equal_multipliers=-1), "equal_multipliers must be a positive integer, got -1"),
        (lambda: SparTen(units=True), "units must be a positive integer, got True"),
        (lambda: SparTen(greedy_balance=wrong("yes")), "greedy_balance must be true or false, got 'yes'"),
        (lambda: EyerissV2(psums=0), "psums must be a positive integer, got 0"),
        (lambda: EyerissV2(barrier="channel"), "barrier must be one of pass, layer, got 'channel'"),
        (lambda: SCNN().simulate([]), "layers must hold at least one Layer"),
        (lambda: SCNN().simulate(wrong(3)), "layers must be a Layer or a sequence of them, got 3"),
        (lambda: SparTen().simulate(wrong([CONV, "x"])), r"layers\[1\] must be a Layer, got 'x'"),
        (
            lambda: SCNN().simulate(Layer.conv(np.ones((1, 1, 1, 2, 2)), np.ones((1, 2, 2, 2, 2)), name="deep")),
            "SCNN cannot run layer deep: it must have one or two spatial axes, got 3",
        ),
        (
            lambda: Dense(arch=Phantom2D(rows=2**31 - 1, cols=2**31 - 1)).simulate(CONV),
            r"multipliers, in layer conv, are more slots than 64 bits hold",
        ),
    ],
)
def test_bad_input_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
