"""The exact model end to end: the specification's vectors, a scalar twin, and what must always hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D, simulate
from tests import cases
from tests.reference import scalar


def weight_pattern(*shape: int) -> np.ndarray:
    """The weight masks of SPEC 7."""
    m = sum((2 * axis + 1) * index for axis, index in enumerate(np.indices(shape)))
    return (m * m + m // 3) % 7 < 2


def activation_pattern(*shape: int) -> np.ndarray:
    """The activation masks of SPEC 7, with a batch axis of one."""
    m = sum((2 * axis + 3) * index for axis, index in enumerate(np.indices(shape)))
    return ((m * m + m // 2) % 5 < 2)[None]


VECTOR_LAYERS = {
    "A": Layer.conv(weight_pattern(3, 3, 10, 9), activation_pattern(12, 12, 10), padding=1),
    "B": Layer.conv(weight_pattern(3, 3, 10, 9), activation_pattern(12, 12, 10), padding=1, strides=2),
    "C": Layer.conv(weight_pattern(1, 1, 40, 12), activation_pattern(6, 6, 40)),
    "D": Layer.conv(weight_pattern(3, 3, 1, 36), activation_pattern(8, 8, 36), padding=1, feature_group_count=36),
    "E": Layer.conv(weight_pattern(5, 5, 2, 6), activation_pattern(9, 9, 4), padding="VALID", feature_group_count=2),
    "F": Layer.dense(weight_pattern(500, 40), activation_pattern(500)),
}
VECTOR_ARCHS = (
    Phantom2D(),
    Phantom2D(selector="in_order", lookahead=9),
    Phantom2D(intra_balance=False, inter_balance=False),
    Phantom2D(rows=3, cols=2, pes=2, threads=4, lookahead=5),
)
VECTORS = {  # SPEC 7: cycles / dense_cycles, row_axis
    "A": ((125, 630, "segments"), (165, 630, "segments"), (204, 630, "segments"), (856, 2880, "jobs")),
    "B": ((39, 216, "jobs"), (42, 216, "jobs"), (91, 216, "jobs"), (209, 720, "jobs")),
    "C": ((29, 108, "jobs"), (36, 108, "jobs"), (57, 108, "jobs"), (122, 360, "filters")),
    "D": ((26, 128, "filters"), (36, 128, "filters"), (60, 128, "filters"), (153, 768, "filters")),
    "E": ((16, 50, "jobs"), (20, 50, "jobs"), (30, 50, "jobs"), (54, 175, "filters")),
    "F": ((24, 112, "filters"), (23, 80, "segments"), (26, 112, "filters"), (131, 441, "filters")),
}


@pytest.mark.parametrize("name", VECTOR_LAYERS)
@pytest.mark.parametrize("column", range(4))
def test_vectors_of_the_specification(name: str, column: int) -> None:
    layer = simulate(VECTOR_LAYERS[name], VECTOR_ARCHS[column]).layers[0]
    assert (int(layer.cycles[0]), layer.dense_cycles, layer.row_axis) == VECTORS[name][column]


@pytest.mark.parametrize("name", VECTOR_LAYERS)
@pytest.mark.parametrize("column", range(4))
def test_the_reference_gives_the_vectors_too(name: str, column: int) -> None:
    expected = scalar.simulate(cases.problem(VECTOR_LAYERS[name], 0), cases.twin(VECTOR_ARCHS[column]))
    assert (expected["cycles"], expected["dense_cycles"], expected["row_axis"]) == VECTORS[name][column]


def test_stacks_of_the_specification() -> None:
    report = simulate([VECTOR_LAYERS["A"], VECTOR_LAYERS["F"]], Phantom2D())
    names = ("effectual", "fragmentation", "intra_core", "bubble", "inter_core", "idle")
    expected = ((17340, 2199, 2520, 0, 1881, 7560), (3310, 362, 387, 54, 207, 1728))
    for layer, slots in zip(report.layers, expected, strict=True):
        assert {name: int(counted[0]) for name, counted in layer.stack.items()} == dict(zip(names, slots, strict=True))
    assert [layer.dense_macs for layer in report.layers] == [116640, 20000]


def assert_equals_reference(layer: Layer, arch: Phantom2D, padding: object = None) -> list[dict]:
    """Compares every integer of a layer's report with the scalar reference, image by image."""
    got = simulate(layer, arch).layers[0]
    references = []
    for image in range(layer.batch):
        expected = scalar.simulate(cases.problem(layer, image, padding), cases.twin(arch))
        assert {
            "cycles": int(got.cycles[image]),
            "dense_cycles": got.dense_cycles,
            "dense_macs": got.dense_macs,
            "effectual_macs": int(got.effectual_macs[image]),
            "row_axis": got.row_axis,
            "stream": got.stream,
            "stack": {name: int(slots[image]) for name, slots in got.stack.items()},
        } == {key: value for key, value in expected.items() if key != "critical"}
        references.append(expected)
    return references


@given(cases.layers(), st.sampled_from(cases.ARCHS))
@settings(max_examples=400)
def test_equals_the_scalar_reference(drawn: tuple[Layer, object], arch: Phantom2D) -> None:
    assert_equals_reference(drawn[0], arch, drawn[1])


@pytest.mark.slow
@given(cases.layers(), st.sampled_from(cases.ARCHS))
@settings(max_examples=4000)
def test_equals_the_scalar_reference_at_length(drawn: tuple[Layer, object], arch: Phantom2D) -> None:
    assert_equals_reference(drawn[0], arch, drawn[1])
