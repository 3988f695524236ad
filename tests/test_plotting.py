"""Figures show the numbers of their report, and are the same bytes each time."""

import dataclasses
import pathlib

import numpy as np
import pytest

from experiments.harness.files import save_figure
from phantom_jax import Layer, Phantom2D, core_cycles, plotting, simulate

RNG = np.random.default_rng(0)
LAYERS = [
    Layer.conv(RNG.random((3, 3, 20, 12)) < 0.3, RNG.random((2, 14, 14, 20)) < 0.5, name="conv"),
    Layer.dense(np.zeros((30, 4)), np.ones((2, 30)), name="empty"),
]
REPORT = simulate(LAYERS, Phantom2D())


def test_stack_shows_the_shares() -> None:
    axes = plotting.cycle_stack(REPORT).axes[0]
    widths = np.array([patch.get_width() for patch in axes.patches]).reshape(6, 3)  # pyright: ignore[reportAttributeAccessIssue]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv", "empty", "total"]
    for row, part in enumerate((*REPORT.layers, REPORT)):
        np.testing.assert_allclose(widths[:, row], [100 * (share or 0) for share in part.shares.values()])
    assert len({(patch.get_facecolor(), patch.get_hatch()) for patch in axes.patches}) == 6


def test_speedups_show_bars_and_bounds() -> None:
    axes = plotting.speedups(REPORT).axes[0]
    ends = [patch.get_x() + patch.get_width() for patch in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(
        ends[::2], np.array([part.speedup_over_ideal_dense for part in (REPORT.layers[0], REPORT)], float)
    )
    assert np.isnan(ends[1])
    bounds = np.array(axes.lines[0].get_xdata(), float)
    np.testing.assert_allclose(
        bounds[[0, 2]], np.array([part.perfect_skipping_bound for part in (REPORT.layers[0], REPORT)], float)
    )


def test_mesh_shows_busy_shares() -> None:
    cores = core_cycles(LAYERS[0], Phantom2D(cols=2))
    above, below = plotting.mesh(cores, "conv", most_rounds=4).axes[:2]
    assert [patch.get_height() for patch in above.patches] == cores[:4].max((1, 2)).tolist()  # pyright: ignore[reportAttributeAccessIssue]
    shown = np.asarray(below.images[0].get_array())
    assert shown.shape == (14, 4)
    np.testing.assert_allclose(shown[:, 0], cores[0].reshape(-1) / cores[0].max())
    assert above.get_title() == f"conv, first 4 of {len(cores)} rounds"


@pytest.mark.parametrize("selector", ["in_order", "out_of_order"])
def test_block_shows_every_cycle(selector: str) -> None:
    """One PE with counts 2 2 1 1 3 0 1, whose cycles SPEC 7 gives."""
    bits = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 1]], bool)[:, None]
    axes = plotting.block(bits, selector, intra_balance=True).axes[0]
    cycles = [text.get_text() for text in axes.texts if text.get_fontsize() == 9][:7]
    assert cycles == list({"in_order": "12234-5", "out_of_order": "12123-4"}[selector])


def test_saved_figures_are_the_same_each_time(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        save_figure(plotting.cycle_stack(REPORT), tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_long_names_leave_room_for_the_bars() -> None:
    layers = [dataclasses.replace(layer, name=f"{'block/' * 60}{layer.name}") for layer in LAYERS]
    report = simulate(layers, Phantom2D())
    for figure in (plotting.cycle_stack(report), plotting.speedups(report)):
        figure.draw_without_rendering()
        (axes,) = figure.axes
        assert axes.get_yticklabels()[0].get_text() == "block/block/block/block..." + ("block/" * 9 + "conv")[-23:]
        assert axes.get_position().width > 0.5
