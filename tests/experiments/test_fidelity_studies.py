"""The measurements of the proxy, on layers whose cycles are known."""

import dataclasses

import numpy as np
import pytest

from experiments.fidelity import cases, draws, figures, studies, summary
from phantom_jax import Layer, Phantom2D, simulate

ONE_CORE = Phantom2D(rows=1, cols=1)


def uniform(*shape: int) -> np.ndarray:
    """Returns the same uniform numbers whichever tests ran before."""
    return np.random.default_rng(0).random(shape)


CONV = Layer.conv(np.zeros((3, 3, 4, 6), bool), uniform(2, 8, 8, 4) < np.array([0.1, 0.4, 0.7, 1.0]), name="conv")
ONE_WEIGHT = Layer.dense(np.zeros((1, 1), bool), np.ones((1, 1), bool), name="one")  # one cycle if it is there


# What is drawn.


@pytest.mark.parametrize("density", [0.02, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (3, 3, 1, 64), (40, 30)])
def test_patterns_have_exactly_their_mean(shape: tuple[int, ...], density: float) -> None:
    for strengths in ((1, 1, 0.5), (0, 0, 0), (2, 0.1, 2)):
        pattern = draws.weight_pattern(draws.generator(0, strengths), shape, density, strengths)
        assert pattern.shape == shape
        assert 0 <= pattern.min() <= pattern.max() <= 1
        assert pattern.mean(dtype=np.float64) == pytest.approx(density, rel=1e-7)
        assert (np.std(pattern) > 0.01) == (strengths[0] > 0 and density < 1)


def test_patterns_favor_filters_channels_or_taps() -> None:
    for axis, strengths in enumerate(([0, 0, 1], [0, 1, 0], [1, 0, 0]), start=1):
        pattern = draws.weight_pattern(draws.generator(0), (3, 3, 8, 8), 0.3, strengths).reshape(9, 8, 8)
        assert np.ptp(pattern, axis=axis - 1).min() > 0.1
        assert np.ptp(pattern, axis=tuple({0, 1, 2} - {axis - 1})).max() < 1e-6


@pytest.mark.parametrize(
    ("shape", "blocks", "expected"),
    [((3, 3, 16, 32), 36, 36), ((3, 3, 1, 64), 36, 36), ((3, 3, 3, 32), 36, 36), ((5, 4), 36, 20), ((1, 1), 2, 1)],
)
def test_blocks_cover_every_weight_once(shape: tuple[int, ...], blocks: int, expected: int) -> None:
    covered = np.zeros(shape, int)
    parts = draws.weight_blocks(shape, blocks)
    for part in parts:
        covered[part] += 1
    assert (covered == 1).all()
    assert len(parts) == expected


def test_redrawn_activations_keep_the_densities_of_channels() -> None:
    densities = np.array([0, 0.2, 0.7, 1])
    mask = uniform(1, 60, 60, 4) < densities
    np.testing.assert_array_equal(draws.redraw(mask, 0, draws.generator(0)), mask)
    half, whole = (draws.redraw(mask, share, draws.generator(0)) for share in (0.5, 1.0))
    for share, drifted in ((0.5, half), (1.0, whole)):
        np.testing.assert_allclose(drifted.mean((0, 1, 2)), densities, atol=0.03)
        changed = (drifted != mask).mean((0, 1, 2))
        np.testing.assert_allclose(changed, share * 2 * densities * (1 - densities), atol=0.03)
    assert (whole[half != mask] == half[half != mask]).all()  # drifts of a layer go one way
    single = uniform(1, 4000) < 0.3  # a channel of one bit says nothing of its density
    assert (draws.redraw(single, 1, draws.generator(0)) != single).mean() == pytest.approx(0.42, abs=0.03)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.25, 2.0])
def test_scaled_activations_have_scaled_densities(factor: float) -> None:
    densities = np.array([0, 0.2, 0.7, 1])
    mask = uniform(1, 60, 60, 4) < densities
    scaled = draws.rescale(mask, factor, draws.generator(0))
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), np.minimum(factor * densities, 1), atol=0.03)
    assert (scaled <= mask).all() if factor <= 1 else (scaled >= mask).all()


# What is measured.


def test_error_of_a_layer_of_one_weight() -> None:
    """It takes a cycle if its weight is there, so the proxy is the density and the exact mean the share of ones."""
    case = studies.measure_error(ONE_WEIGHT, ONE_CORE, mask_kind="iid", density=0.25, draws=64, seed=0)
    assert case.proxy == pytest.approx(0.25)
    ones = round(64 * case.exact)
    assert 0 < ones < 64
    share = ones / 64
    assert case.exact == share
    assert case.standard_error == pytest.approx((share * (1 - share) / 63) ** 0.5 / share)
    assert case.error == pytest.approx(0.25 / share - 1)


def test_errors_of_no_cycles_are_none() -> None:
    case = studies.measure_error(ONE_WEIGHT, ONE_CORE, mask_kind="iid", density=1e-9, draws=2, seed=0)
    assert (case.exact, case.error, case.standard_error) == (0, None, None)


@pytest.mark.parametrize("mask_kind", draws.KINDS)
def test_dense_weights_have_no_error(mask_kind: str) -> None:
    case = studies.measure_error(CONV, Phantom2D(), mask_kind=mask_kind, density=1.0, draws=2, seed=0)
    dense = simulate(dataclasses.replace(CONV, weights=np.ones(CONV.weights.shape)), Phantom2D())
    assert case.exact == dense.cycles.mean()
    assert case.error == pytest.approx(0, abs=1e-5)
    assert case.standard_error == 0


def test_cases_depend_on_the_seed_alone_and_share_masks_over_balances() -> None:
    def measure(seed: int, inter_balance: bool) -> cases.ErrorCase:
        arch = dataclasses.replace(ONE_CORE, inter_balance=inter_balance)
        return studies.measure_error(CONV, arch, mask_kind="channel", density=0.4, draws=4, seed=seed)

    first = measure(0, False)
    assert measure(0, False) == first
    assert measure(0, True).exact == first.exact  # one core takes the same cycles in any order
    assert measure(1, False).exact != first.exact


def test_exact_means_are_over_draws_and_images() -> None:
    def exact(layer: Layer) -> float:
        return studies.measure_error(layer, Phantom2D(), mask_kind="iid", density=0.4, draws=4, seed=0).exact

    images = [dataclasses.replace(CONV, activations=image[None]) for image in CONV.activations]
    assert exact(CONV) == pytest.approx(np.mean([exact(image) for image in images]))


def test_ranks_on_one_core_are_those_of_the_exact_means() -> None:
    case = studies.measure_rank(CONV, ONE_CORE, density=0.4, patterns=6, draws=30, seed=0)
    assert len(case.proxy) == len(case.exact) == len(case.standard_errors) == 6
    assert (np.abs(np.subtract(case.proxy, case.exact)) < 4 * np.array(case.standard_errors)).all()
    assert case.spread is not None
    assert case.spread == pytest.approx(np.std(case.exact, ddof=1) / np.mean(case.standard_errors))
    assert case.correlation is not None
    assert case.correlation > 0.8
    assert case.halves is not None


def test_rank_correlation() -> None:
    assert studies.rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert studies.rank_correlation([1, 2, 3], [5, 5, 5]) is None


def test_cosine() -> None:
    assert studies.cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(0.5**0.5)
    assert studies.cosine(np.zeros(2), np.ones(2)) is None


@pytest.mark.slow
def test_gradient_of_a_layer_whose_slopes_are_known() -> None:
    """Masks of one bit take a cycle each, if their job's weight is there: 8 positions x the weights of a block."""
    arch = Phantom2D(rows=1, cols=1, pes=1, threads=1, lookahead=1)
    layer = Layer.conv(np.zeros((1, 4, 5), bool), uniform(1, 8, 4) < 0.5, name="bits")
    case = studies.measure_gradient(layer, arch, density=0.5, blocks=4, step=0.2, draws=200, seed=0)
    assert case.proxy == pytest.approx([8 * 2 * 2, 8 * 2 * 3] * 2)
    assert case.exact == pytest.approx(case.proxy, rel=0.2)
    assert case.cosine is not None
    assert case.cosine > 0.99
    assert case.centered is not None
    assert case.centered > 0.9
    assert case.halves is not None
    assert case.cosine > case.halves > 0.95
    assert case.centered_halves is not None
    assert case.centered > case.centered_halves > 0.5


def test_a_stale_calibration_errs_where_activations_have_changed() -> None:
    def measure(drift: str, amount: float) -> cases.StaleCase:
        return studies.measure_stale(CONV, ONE_CORE, drift=drift, amount=amount, density=0.4, draws=40, seed=0)

    same = measure("redrawn", 0.0)
    assert same.stale == same.fresh
    assert same.stale_error == same.fresh_error
    assert same.activation_density == CONV.activations.mean()
    thinner = measure("scaled", 0.5)
    assert thinner.stale == same.stale
    assert thinner.activation_density == pytest.approx(same.activation_density / 2, rel=0.1)
    assert thinner.stale_error is not None
    assert thinner.stale_error > 0.3
    assert thinner.fresh_error is not None
    assert thinner.standard_error is not None
    assert abs(thinner.fresh_error) < 4 * thinner.standard_error


# What is made of the cases.

CASES: list[cases.Case] = [
    *(
        cases.ErrorCase("a", mask_kind, density, balance, 100 + error, 100, 0.01 * density, error / 100)
        for mask_kind, balance, density, error in (
            ("iid", False, 0.5, 3.0),
            ("iid", False, 1.0, -5.0),
            ("channel", True, 0.5, 1.0),
        )
    ),
    cases.ErrorCase("b", "iid", 0.1, False, 0.0, 0.0, None, None),
    cases.RankCase("a", False, (1.0, 2.0, 3.0), (1.0, 2.5, 3.5), (0.1, 0.2, 0.1), 1.0, 0.5, 8.0),
    cases.RankCase("b", False, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), None, None, None),
    cases.GradientCase("a", True, (1.0, 2.0), (1.0, 2.1), 0.9, 0.8, 0.7, 0.6),
    *(
        cases.StaleCase("a", False, drift, amount, 0.5, 110, 101, 100, 0.02, error, 0.01)
        for drift, amount, error in (("redrawn", 0.5, -0.1), ("redrawn", 0.0, 0.01), ("scaled", 0.8, 0.1))
    ),
]


def test_summary() -> None:
    found = summary.summarize(CASES)
    errors = {(row["layer"], row["inter_balance"]): row for row in found["error"]}
    assert list(errors) == [("a", False), ("a", True), ("b", False), ("total", False), ("total", True)]
    expected = {
        "mean_error": 0.04,
        "bias": -0.01,
        "worst_error": -0.05,
        "worst_mask_kind": "iid",
        "worst_density": 1.0,
        "standard_error": 0.0075,
    }
    for name in ("a", "total"):  # b has no cycles, so no errors
        row = errors[name, False]
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert errors["b", False]["mean_error"] is None
    assert [row["correlation"] for row in found["rank"]] == [1, None, 1]
    assert [row["centered"] for row in found["gradient"]] == [0.7, 0.7]
    assert found["stale"][0]["redrawn_0.5"] == 0.1
    assert found["stale"][0]["fresh_error"] == 0.01


def test_figures_show_the_cases() -> None:
    drawn = {name: draw() for name, draw in figures.figures(CASES).items()}
    assert list(drawn) == ["error", "rank", "gradient", "stale_redrawn", "stale_scaled"]
    panel = drawn["error"].axes[0]
    assert panel.get_title() == "a"
    np.testing.assert_allclose(np.asarray(panel.lines[0].get_xydata()), [[0.5, 3], [1, -5]])
    np.testing.assert_allclose(np.asarray(drawn["rank"].axes[0].lines[0].get_xydata()), [[1, 1], [2.5, 2], [3.5, 3]])
    cosines = [np.ravel(line.get_xdata()).tolist() for line in drawn["gradient"].axes[1].lines]
    assert cosines == [[0.7], [0.6]]
    stale = drawn["stale_redrawn"].axes[0].lines[0]
    np.testing.assert_allclose(np.asarray(stale.get_xydata()), [[0, 1], [0.5, -10]])
