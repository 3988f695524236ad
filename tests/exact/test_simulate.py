"""The exact model end to end: the specification's vectors, a scalar twin, and what must always hold."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D, simulate
from tests import cases
from tests.reference import scalar


def weight_pattern(*shape: int) -> np.ndarray:
    """The weight masks of SPEC 7."""
    m = np.tensordot(2 * np.arange(len(shape)) + 1, np.indices(shape), 1)
    return (m * m + m // 3) % 7 < 2


def activation_pattern(*shape: int) -> np.ndarray:
    """The activation masks of SPEC 7, with a batch axis of one."""
    m = np.tensordot(2 * np.arange(len(shape)) + 3, np.indices(shape), 1)
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
def test_equals_the_scalar_reference(drawn: tuple[Layer, object], arch: Phantom2D) -> None:
    assert_equals_reference(drawn[0], arch, drawn[1])


@pytest.mark.slow
@given(cases.layers(), st.sampled_from(cases.ARCHS))
@settings(max_examples=6000)
def test_equals_the_scalar_reference_at_length(drawn: tuple[Layer, object], arch: Phantom2D) -> None:
    assert_equals_reference(drawn[0], arch, drawn[1])


@given(cases.layers(batch=2), st.sampled_from(cases.ARCHS))
def test_invariants(drawn: tuple[Layer, object], arch: Phantom2D) -> None:
    layer, _ = drawn
    report = simulate(layer, arch)
    np.testing.assert_array_equal(sum(report.stack.values()), report.cycles * arch.multipliers)
    assert all((slots >= 0).all() for slots in report.stack.values())
    assert (report.cycles >= -(-report.effectual_macs // arch.multipliers)).all()
    np.testing.assert_array_equal(report.effectual_macs, product_of_masks(layer))


def product_of_masks(layer: Layer) -> np.ndarray:
    """Returns, per image, the sum of the layer's output for masks of zeros and ones, as JAX computes it."""
    weights, activations = ((np.asarray(array) != 0).astype(np.float32) for array in (layer.weights, layer.activations))
    output = cases.convolve(layer, weights, activations) if layer.is_conv else activations @ weights
    return np.asarray(output).astype(np.int64).reshape(layer.batch, -1).sum(1)


@pytest.mark.parametrize("arch", [Phantom2D(), Phantom2D(rows=3, cols=2, pes=2, threads=4, lookahead=5)])
@pytest.mark.parametrize("selector", [pytest.param("in_order", marks=pytest.mark.slow), "out_of_order"])
def test_masks_of_ones_take_the_dense_cycles(arch: Phantom2D, selector: str) -> None:
    arch = Phantom2D(arch.rows, arch.cols, arch.pes, arch.threads, arch.lookahead, selector)
    slots = arch.slots
    layers = [  # Rd is a multiple of S, and there is no padding
        Layer.conv(np.ones((3, 3, slots, 5)), np.ones((2, 9, 8, slots)), padding="VALID"),
        Layer.conv(np.ones((1, 1, 2 * slots, 33)), np.ones((2, 4, 4, 2 * slots)), strides=2),
        Layer.dense(np.ones((50 * slots, 60)), np.ones((2, 50 * slots))),
        Layer.dense(np.ones((slots, 3)), np.ones((2, 70, slots))),
    ]
    report = simulate(layers, arch)
    for layer in report.layers:
        assert layer.cycles.tolist() == [layer.dense_cycles] * 2


def test_permuting_images_permutes_results() -> None:
    rng = np.random.default_rng(0)
    weights, activations = rng.random((3, 3, 8, 6)) < 0.4, rng.random((4, 9, 9, 8)) < rng.random((4, 1, 1, 8))
    order = [2, 0, 3, 1]
    straight, permuted = (simulate(Layer.conv(weights, a), Phantom2D()) for a in (activations, activations[order]))
    assert len(set(straight.cycles.tolist())) == 4
    np.testing.assert_array_equal(permuted.cycles, straight.cycles[order])
    for component, slots in straight.stack.items():
        np.testing.assert_array_equal(permuted.stack[component], slots[order])


def random_dense(seed: int, positions: int, channels: int, filters: int) -> Layer:
    rng = np.random.default_rng(seed)
    return Layer.dense(rng.random((channels, filters)) < 0.4, rng.random((1, positions, channels)) < 0.5)


def test_positions_exactly_min_of_lookahead_and_chunks() -> None:
    arch = Phantom2D(lookahead=6)
    for positions, channels, stream in [
        (6, 90, "positions"),
        (5, 90, "chunks"),
        (4, 36, "positions"),
        (3, 36, "chunks"),
    ]:
        references = assert_equals_reference(random_dense(0, positions, channels, 5), arch)
        assert references[0]["stream"] == stream


@pytest.mark.parametrize(
    ("filters", "positions", "rows", "cols", "tied"),
    [
        (1, 1, 2, 2, ("jobs", "filters", "segments")),
        (2, 2, 2, 1, ("filters", "segments")),
        (2, 9, 1, 2, ("jobs", "filters", "segments")),
    ],
)
def test_ties_between_row_axes(filters: int, positions: int, rows: int, cols: int, tied: tuple[str, ...]) -> None:
    arch = Phantom2D(rows=rows, cols=cols, lookahead=1)
    reference = assert_equals_reference(random_dense(1, positions, 9, filters), arch)[0]
    fewest = min(reference["critical"].values())
    assert tuple(axis for axis, blocks in reference["critical"].items() if blocks == fewest) == tied
    assert reference["row_axis"] == tied[0]


def test_uneven_segments() -> None:
    reference = assert_equals_reference(random_dense(2, 100, 9, 4), Phantom2D(rows=7, lookahead=5))[0]
    assert reference["row_axis"] == "segments"  # of 14 and 15 masks, in three blocks of five at most


def test_segments_without_masks() -> None:
    """Five positions on nine rows: four cores of every column hold a job that is not zero, but none of its masks."""
    arch = Phantom2D(rows=9, cols=1, lookahead=2)
    reference = assert_equals_reference(random_dense(3, 5, 9, 2), arch)[0]
    assert reference["row_axis"] == "segments"
    assert reference["stack"]["idle"] >= 4 * reference["cycles"] * arch.slots


def test_layers_without_work() -> None:
    ones, zeros = np.ones((18, 5)), np.zeros((18, 5))
    nothing, bubbles = simulate([Layer.dense(zeros, ones.T[:1]), Layer.dense(ones, zeros.T[:1])], Phantom2D()).layers
    assert nothing.cycles.tolist() == [0]
    assert [slots.tolist() for slots in nothing.stack.values()] == [[0]] * 6
    # Two chunks, one block, five filters on five cores: one cycle that loads the masks, and finds no work.
    assert bubbles.cycles.tolist() == [1]
    assert int(bubbles.stack["bubble"][0]) == 5 * 9
    assert int(bubbles.stack["idle"][0]) == 23 * 9


@pytest.mark.slow
def test_no_overflow_of_slots_or_macs() -> None:
    """Over 2^32 thread slots, over 2^40 dense MACs: two chunks of ones, and 250 of 65536 filters with weights."""
    positions, filters, live = 1 << 20, 1 << 16, 250
    weights = np.zeros((1, 1, 18, filters), bool)
    weights[..., :live] = True
    activations = np.ones((1, 1 << 10, 1 << 10, 18), bool)
    layer = simulate(Layer.conv(weights, activations), Phantom2D(rows=8)).layers[0]
    assert layer.dense_macs == positions * 18 * filters > 1 << 40
    assert layer.row_axis == "filters"
    rounds = -(-live // 32)  # of 32 filters each; rounds of filters without weights take no time
    cycles = rounds * 2 * positions  # one mask a cycle
    assert layer.cycles.tolist() == [cycles]
    assert layer.dense_cycles == filters // 32 * 2 * positions > 1 << 31
    assert cycles * 32 * 9 > 1 << 32
    assert {component: int(slots[0]) for component, slots in layer.stack.items()} == {
        "effectual": live * 18 * positions,
        "fragmentation": 0,
        "intra_core": 0,
        "bubble": 0,
        "inter_core": 0,
        "idle": (rounds * 32 - live) * 2 * positions * 9,  # cores without a filter in the last round
    }


def test_a_mesh_too_large_for_64_bits_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"cycles of \d+ multipliers, in layer layer0, are more slots than 64 bits hold"
    ):
        simulate(random_dense(0, 3, 9, 2), Phantom2D(rows=(1 << 31) - 1, cols=(1 << 31) - 1))
    with pytest.raises(ValueError, match=r"multipliers, up to layer layer\d+, are more slots than 64 bits hold"):
        simulate([random_dense(0, 3, 9, 2)] * 20, Phantom2D(rows=1 << 28, cols=1 << 28))


def test_new_masks_and_new_shapes_do_not_recompile() -> None:
    compilations = []

    def listen(event: str, duration_secs: float, **metadata: str | int) -> None:
        if "backend_compile" in event:
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    arch = Phantom2D(lookahead=11)
    rng = np.random.default_rng(0)

    def network(channels: int, filters: int, side: int) -> list[Layer]:
        conv = Layer.conv(rng.random((3, 3, channels, filters)) < 0.3, rng.random((1, side, side, channels)) < 0.5)
        return [conv, Layer.dense(rng.random((500, filters)) < 0.3, rng.random((1, 500)) < 0.5)]

    simulate(network(20, 30, 13), arch)
    assert compilations  # the listener hears
    compilations.clear()
    simulate(network(20, 30, 13), arch)
    simulate(network(7, 150, 28), arch)
    assert not compilations


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers must hold at least one Layer, got none"),
        (3, "layers must be a Layer or a sequence of them, got 3"),
        ([np.ones(3)], "layers\\[0\\] must be a Layer, got array"),
        (
            [VECTOR_LAYERS["A"], Layer.dense(np.ones((3, 2)), np.ones((2, 3)))],
            "activations of layers\\[1\\] \\(layer1\\) have a batch of 2 images, but those of layer0 have 1",
        ),
    ],
)
def test_bad_layers(layers, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(layers, Phantom2D())


def test_bad_arch_and_traced_layers() -> None:
    with pytest.raises(ValueError, match="arch must be a Phantom2D, got 'phantom_cv'"):
        simulate(VECTOR_LAYERS["A"], "phantom_cv")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="layer0\\) holds traced arrays; simulate needs concrete masks"):
        jax.jit(lambda layer: simulate(layer, Phantom2D()).cycles)(VECTOR_LAYERS["A"])


def test_a_layer_that_does_not_fit_the_memory_is_named() -> None:
    layer = Layer.dense(np.ones((2, 8)), np.ones((1, 2)), name="fc")
    message = "layer fc takes more memory than there is with pes 6000000, threads 1 and lookahead 9: "
    with pytest.raises(MemoryError, match=message):
        simulate(layer, Phantom2D(pes=6_000_000, threads=1, lookahead=9))
