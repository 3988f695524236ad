"""The mesh: choice of the row axis, placement of jobs, rounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D, core_cycles, simulate
from phantom_jax.exact.lowering import Streams
from phantom_jax.exact.mesh import ROW_AXES, Mapping, choose_row_axis, cut_segments, place_jobs, run_rounds
from tests import cases
from tests.reference import scalar


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 3000), st.sampled_from(cases.ARCHS), st.booleans())
def test_row_axis_and_dense_cycles(filters: int, jobs: int, length: int, arch: Phantom2D, along: bool) -> None:
    chunks, positions = (jobs, length) if along else (length, jobs)
    streams = Streams(1, chunks, positions, filters, "positions" if along else "chunks")
    row_axis, dense, _ = scalar.choose_row_axis(filters, jobs, length, cases.twin(arch))
    assert choose_row_axis(streams, arch) == (row_axis, dense[row_axis])


@given(st.integers(1, 200), st.integers(1, 250))
def test_segments(length: int, rows: int) -> None:
    bounds = scalar.segment_bounds(length, scalar.Arch(rows=rows))
    assert cut_segments(length, rows) == [(start, stop) for start, stop in bounds if stop > start]


@given(st.data(), st.integers(1, 9), st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), st.booleans())
def test_placement(data: st.DataObject, filters: int, jobs: int, rows: int, cols: int, balance: bool) -> None:
    # Few different loads, so that ties abound.
    loads = np.array(data.draw(st.lists(st.integers(0, 4), min_size=filters * jobs, max_size=filters * jobs)))
    loads = loads.reshape(filters, jobs)
    arch = Phantom2D(rows=rows, cols=cols, inter_balance=balance)
    placed = place_jobs(loads, arch)
    for index, start in enumerate(range(0, filters, cols)):
        expected = scalar.place_jobs(loads[start : start + cols].tolist(), cases.twin(arch))
        assert placed[index].tolist() == expected


@pytest.mark.parametrize(("rows", "cols", "filters", "jobs"), [(100, 3, 7, 300), (3, 200, 250, 130), (1000, 900, 2, 5)])
def test_placement_on_large_meshes(rows: int, cols: int, filters: int, jobs: int) -> None:
    loads = np.random.default_rng(0).integers(0, 10, (filters, jobs))
    arch = Phantom2D(rows=rows, cols=cols)
    for index, placed in enumerate(place_jobs(loads, arch)):
        expected = scalar.place_jobs(loads[index * cols : (index + 1) * cols].tolist(), cases.twin(arch))
        assert placed.tolist() == expected


def test_placement_of_loads_beyond_32_bits() -> None:
    loads = np.array([[5, 3, 3, 2, 2, 2]]) << 31
    arch = Phantom2D(rows=2, cols=1)
    assert place_jobs(loads, arch)[0].tolist() == scalar.place_jobs(loads.tolist(), cases.twin(arch))


def test_a_round_lasts_as_long_as_its_slowest_core() -> None:
    arch = Phantom2D(rows=2, cols=2, inter_balance=False)
    # Five filters of two jobs; job j runs on row j. Rounds: filters 0 and 1, 2 and 3, 4 alone.
    jobs = np.array([[7, 1], [2, 0], [0, 0], [4, 4], [0, 3]])[:, :, None]
    mapping = Mapping("jobs", [(0, 1)], 0, np.arange(5), np.array([[0, 1]] * 3))
    mesh = run_rounds(jobs, mapping, arch)
    assert mesh.cycles == 7 + 4 + 3
    assert mesh.waiting == (7 - 1) + (7 - 2) + 0 + 0  # round 1: two cores wait; rounds 2 and 3: none that worked
    assert mesh.idle == 1 * 7 + 2 * 4 + 3 * 3


@pytest.mark.parametrize("row_axis", ROW_AXES)
def test_layers_that_tie_row_axes_take_the_first(row_axis: str) -> None:
    """Each layer ties the named axis with every later one, on a mesh and lookahead of small numbers."""
    # filters, jobs, length, rows, cols, lookahead -> blocks on the critical path of jobs, filters, segments
    filters, jobs, length, rows, cols, lookahead = {
        "jobs": (1, 1, 1, 2, 2, 1),  # 1, 1, 1
        "filters": (2, 1, 2, 2, 1, 1),  # 4, 2, 2
        "segments": (2, 1, 3, 3, 2, 1),  # 3, 3, 1: no later axis to tie with
    }[row_axis]
    arch = Phantom2D(rows=rows, cols=cols, lookahead=lookahead)
    chosen, _, critical = scalar.choose_row_axis(filters, jobs, length, cases.twin(arch))
    later = ROW_AXES[ROW_AXES.index(row_axis) :]
    assert chosen == row_axis
    assert len({critical[axis] for axis in later}) == 1
    assert choose_row_axis(Streams(1, jobs, length, filters, "positions"), arch)[0] == row_axis


@given(cases.layers(batch=1), st.sampled_from(cases.ARCHS))
def test_cores_of_the_mesh_add_up(drawn: tuple[Layer, object], arch: Phantom2D) -> None:
    layer, _ = drawn
    cores, report = core_cycles(layer, arch), simulate(layer, arch)
    assert cores.shape[1:] == (arch.rows, arch.cols)
    rounds = cores.max((1, 2))
    assert rounds.sum() == report.cycles[0]
    waits = (rounds[:, None, None] - cores) * arch.slots
    assert waits[cores > 0].sum() == report.stack["inter_core"][0]
    assert waits[cores == 0].sum() == report.stack["idle"][0]


def test_segments_lie_on_their_rows() -> None:
    """Five masks of ones on nine rows: rows 1, 3, 5, 7 and 8 hold one, floor(r*5/9) to floor((r+1)*5/9)."""
    arch = Phantom2D(rows=9, cols=1, lookahead=2)
    cores = core_cycles(Layer.dense(np.ones((9, 1)), np.ones((1, 5, 9))), arch)
    bounds = scalar.segment_bounds(5, cases.twin(arch))
    assert cores[0, :, 0].tolist() == [stop - start for start, stop in bounds]


def test_core_cycles_of_no_such_image() -> None:
    layer = Layer.dense(np.ones((9, 1)), np.ones((2, 5, 9)))
    with pytest.raises(ValueError, match="image must be below the batch of 2, got 2"):
        core_cycles(layer, Phantom2D(), image=2)
