"""Methods that choose weights, and budgets: densities and exact cycles."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from phantom_jax import Layer, Phantom2D, simulate
from phantom_jax.sparsity import (
    NM,
    CycleAware,
    GlobalMagnitude,
    MacAwareMagnitude,
    Masked,
    Method,
    UniformMagnitude,
    dense_cycles,
    exact_cycles,
    keep_best,
    keep_cycles,
    keep_density,
    least_cycles,
    macs_per_weight,
)
from tests.cases import layers as drawn_layers

ARCH = Phantom2D(rows=2, cols=2, inter_balance=False)


class Net(nnx.Module):
    """Two layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.second = nnx.Conv(4, 8, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.second(nnx.relu(self.first(images)))).mean((1, 2)))


IMAGES = np.random.default_rng(0).random((4, 6, 6, 1)).astype(np.float32)


def make() -> Masked:
    return Masked(Net(nnx.Rngs(0)), IMAGES)


def counted(layer: Layer) -> np.ndarray:
    """Returns the MACs per weight and image by going over all outputs and all elements of their windows."""
    activations = np.asarray(layer.activations) != 0
    counts = np.zeros(layer.weights.shape)
    if not layer.is_conv:
        return counts + activations.sum(tuple(range(activations.ndim - 1)))[:, None]
    *kernel, depth, filters = layer.weights.shape
    spatial = activations.shape[1:-1]
    for output, tap in itertools.product(np.ndindex(*layer.output_shape), np.ndindex(*kernel)):
        place = [
            at * stride + offset * by - low
            for at, stride, offset, by, (low, _) in zip(
                output, layer.strides, tap, layer.kernel_dilation, layer.padding, strict=True
            )
        ]
        inside = all(
            at % by == 0 and 0 <= at // by < size
            for at, by, size in zip(place, layer.input_dilation, spatial, strict=True)
        )
        if not inside:
            continue
        seen = activations[(slice(None), *(at // by for at, by in zip(place, layer.input_dilation, strict=True)))]
        for filter_ in range(filters):
            group = filter_ // (filters // layer.feature_group_count)
            counts[(*tap, slice(None), filter_)] += seen[:, group * depth : (group + 1) * depth].sum(0)
    return counts


@hypothesis.given(drawn_layers())
@hypothesis.settings(max_examples=15)
def test_macs_of_weights_are_counted_and_add_up_to_those_of_the_exact_model(drawn: tuple[Layer, object]) -> None:
    layer, _ = drawn
    macs = macs_per_weight(layer)
    np.testing.assert_allclose(macs, counted(layer) / layer.batch, rtol=1e-12)
    of_mask = (macs * (np.asarray(layer.weights) != 0)).sum()
    np.testing.assert_allclose(of_mask, simulate(layer, ARCH).layers[0].effectual_macs.mean(), rtol=1e-12)


def test_scores_of_magnitude() -> None:
    model = make()
    weights = {name: np.asarray(values) for name, values in model.weights().items()}
    scores = GlobalMagnitude().scores(model, ())
    for name, values in weights.items():
        np.testing.assert_array_equal(scores[name], np.abs(values))
    masks = keep_density(UniformMagnitude().scores(model, ()), 0.25)
    assert [int(mask.sum()) for mask in masks.values()] == [9, 72, 6]
    for name, mask in masks.items():
        assert np.abs(weights[name])[mask].min() >= np.abs(weights[name])[~mask].max()


def test_equal_weights_leave_each_layer_its_share() -> None:
    network = Net(nnx.Rngs(0))
    for layer in (network.first, network.second, network.head):
        layer.kernel.set_value(jnp.ones_like(layer.kernel.get_value()))
    masks = keep_density(UniformMagnitude().scores(Masked(network, IMAGES), ()), 0.25)
    assert [int(mask.sum()) for mask in masks.values()] == [9, 72, 6]
    assert all(mask.ravel()[: mask.sum()].all() for mask in masks.values())  # the first ones


def test_scores_by_macs_are_what_a_saved_mac_costs() -> None:
    model = make()
    images = IMAGES.copy()
    images[:, :, 3:] = 0
    model.set_masks({name: np.arange(w.shape[-1]) > 0 + np.zeros(w.shape) for name, w in model.weights().items()})
    layers = model.trace(images)  # the first filters are dead, so what reads them meets nothing
    scores = MacAwareMagnitude().scores(model, layers)
    for layer, values in zip(layers, model.weights().values(), strict=True):
        macs = counted(layer) / layer.batch
        with np.errstate(divide="ignore"):
            expected = np.where(macs > 0, np.asarray(values, np.float64) ** 2 / macs, 0)
        np.testing.assert_allclose(scores[str(layer.name)], expected, rtol=1e-12)
    assert (scores["second"][:, :, 0] == 0).all()
    assert (scores["second"][:, :, 1:] > 0).any()


def test_n_of_m_weights_stay_in_every_group_and_other_layers_are_dense() -> None:
    model = make()
    for n, m in ((1, 4), (2, 4), (1, 2)):
        kept = NM(n, m).scores(model, ())
        np.testing.assert_array_equal(kept["first"], 1)  # one channel
        for name, channels in (("second", 4), ("head", 8)):
            shape = (-1, channels // m, m, kept[name].shape[-1])
            groups = np.moveaxis(kept[name].reshape(shape), 2, 3)
            magnitudes = np.moveaxis(np.abs(np.asarray(model.weights()[name])).reshape(shape), 2, 3)
            np.testing.assert_array_equal(groups.sum(-1), n)
            np.testing.assert_array_equal(groups > 0, magnitudes >= np.sort(magnitudes, axis=-1)[..., m - n, None])


def test_logits_begin_by_magnitude_and_are_scores_once_learned() -> None:
    model = make()
    logits = CycleAware().logits(model)
    squares = {name: np.asarray(values, np.float64) ** 2 for name, values in model.weights().items()}
    median = np.median(np.concatenate([np.log(values).ravel() for values in squares.values()]))
    for name, values in squares.items():
        odds = np.clip(np.e * values / np.exp(median), np.exp(-4), np.exp(6))
        np.testing.assert_allclose(np.exp(logits[name]), odds, rtol=1e-5)
    model.learn(logits)
    scores = CycleAware().scores(model, ())
    assert list(scores) == list(model.names)
    for name, values in scores.items():
        np.testing.assert_allclose(values, logits[name], rtol=1e-6)


@hypothesis.given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.data())
def test_the_best_are_kept_and_of_equals_the_first(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    split = data.draw(st.integers(1, len(values) - 1))
    dtype = data.draw(st.sampled_from([np.uint8, np.int64, np.float32, jnp.bfloat16]))
    scores = {"b": np.array(values[:split], dtype), "a": np.array(values[split:], dtype)}
    masks = keep_best(scores, count)
    kept = np.concatenate([masks["b"], masks["a"]])
    wanted = sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]
    assert np.flatnonzero(kept).tolist() == sorted(wanted)


@functools.cache
def two_layers() -> tuple[list[Layer], dict[str, np.ndarray]]:
    """Returns layers of two images, and scores."""
    rng = np.random.default_rng(3)
    layers = [
        Layer.conv(np.ones((3, 3, 8, 16)), rng.random((2, 12, 12, 8)) < 0.6, name="a"),
        Layer.dense(np.ones((16, 10)), rng.random((2, 16)) < 0.5, name="b"),
    ]
    return layers, {str(layer.name): rng.random(layer.weights.shape) for layer in layers}


def test_cycles_of_masks_are_those_of_the_exact_model() -> None:
    layers, scores = two_layers()
    masks = keep_density(scores, 0.3)
    assert abs(sum(mask.sum() for mask in masks.values()) - 0.3 * (3 * 3 * 8 * 16 + 16 * 10)) <= 0.5
    masked = [
        Layer.conv(masks["a"], layers[0].activations, name="a"),
        Layer.dense(masks["b"], layers[1].activations, name="b"),
    ]
    assert exact_cycles(layers, masks, ARCH) == simulate(masked, ARCH).cycles.mean()
    assert dense_cycles(layers, ARCH) == sum(layer.dense_cycles for layer in simulate(layers, ARCH).layers)


@pytest.mark.parametrize("start", [None, 1, 300, 9999])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.4, 0.8])
def test_masks_meet_a_budget_of_exact_cycles(share: float, start: int | None) -> None:
    layers, scores = two_layers()
    wanted = share * exact_cycles(layers, {name: np.ones(values.shape) for name, values in scores.items()}, ARCH)
    masks = keep_cycles(scores, layers, ARCH, wanted, start)
    error = abs(exact_cycles(layers, masks, ARCH) - wanted)
    count = sum(int(mask.sum()) for mask in masks.values())
    assert error <= 0.025 * wanted
    for mask, other in zip(masks.values(), keep_best(scores, count).values(), strict=True):
        np.testing.assert_array_equal(mask, other)
    for near in range(max(count - 8, 0), count + 9, 4):  # cycles are not monotone, but nearly
        assert error <= abs(exact_cycles(layers, keep_best(scores, near), ARCH) - wanted) + 0.01 * wanted


def test_a_search_that_starts_near_its_end_counts_few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, scores = two_layers()
    wanted = 0.3 * dense_cycles(layers, ARCH)
    counted: list[int] = []

    def count(layers: Sequence[Layer], masks: Mapping[str, np.ndarray], arch: Phantom2D) -> float:
        counted.append(sum(int(mask.sum()) for mask in masks.values()))
        return exact_cycles(layers, masks, arch)

    monkeypatch.setattr("phantom_jax.sparsity.budget.exact_cycles", count)
    kept = sum(int(mask.sum()) for mask in keep_cycles(scores, layers, ARCH, wanted).values())
    far = len(counted)
    assert counted[0] == sum(values.size for values in scores.values())
    for start in (round(0.95 * kept), kept, round(1.05 * kept)):
        counted.clear()
        keep_cycles(scores, layers, ARCH, wanted, start)
        assert counted[0] == start
        assert len(counted) <= min(4, far - 1)


@pytest.mark.parametrize("start", [None, 7])
def test_a_budget_of_more_than_all_weights_take_keeps_all(start: int | None) -> None:
    layers, scores = two_layers()
    assert all(mask.all() for mask in keep_cycles(scores, layers, ARCH, 1e9, start).values())


@pytest.mark.parametrize("start", [None, 1, 7])
@pytest.mark.parametrize("count", [1, 2])
def test_a_share_where_cycles_are_meant_is_refused(count: int, start: int | None) -> None:
    layers, scores = two_layers()
    layers, scores = layers[:count], {name: scores[name] for name in ("a", "b")[:count]}
    least = least_cycles(layers, ARCH)
    assert least >= count
    for cycles in (0.1, 0.99 * least):
        with pytest.raises(
            ValueError, match=rf"cycles must be at least {least:g}, .* got {cycles}; .* of `dense_cycles`"
        ):
            keep_cycles(scores, layers, ARCH, cycles, start)
    assert any(mask.any() for mask in keep_cycles(scores, layers, ARCH, least, start).values())


def test_the_least_cycles_are_those_of_one_weight_in_each_layer() -> None:
    layers, scores = two_layers()
    single = {name: np.arange(values.size).reshape(values.shape) == 0 for name, values in scores.items()}
    assert least_cycles(layers, ARCH) == exact_cycles(layers, single, ARCH)


def with_mask(name: str, values: Any) -> Any:
    return {**keep_density(two_layers()[1], 0.5), name: values}


NAN = np.full((16, 10), np.nan)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "method n": (lambda: NM(0, 4), r"n must be a positive integer, got 0"),
    "method n of m": (lambda: NM(4, 4), r"n must be less than m \(4\), got 4"),
    "method m": (lambda: NM(1, 2.5), r"m must be a positive integer, got 2\.5"),  # pyright: ignore[reportArgumentType]
    "layers of macs": (
        lambda: MacAwareMagnitude().scores(make(), two_layers()[0]),
        "layers must be those of the model",
    ),
    "no logits": (lambda: CycleAware().scores(make(), ()), "model must have keep probabilities"),
    "macs": (lambda: macs_per_weight(np.ones(3)), "layer must be a Layer"),  # pyright: ignore[reportArgumentType]
    "macs traced": (
        lambda: jax.jit(lambda a: macs_per_weight(Layer.dense(np.ones((3, 2)), a)))(np.ones((1, 3))),
        "layer must hold concrete activations",
    ),
    "no scores": (lambda: keep_best({}, 1), "scores must be a mapping .* got an empty one"),
    "scores": (lambda: keep_best({"b": NAN}, 1), r"scores\['b'\] must not hold NaN, got 160"),
    "count": (lambda: keep_best({"a": np.ones(3)}, -1), "count must be a non-negative integer, got -1"),
    "count too large": (lambda: keep_best({"a": np.ones(3)}, 4), "count must be at most the 3 weights .* got 4"),
    "density": (lambda: keep_density({"a": np.ones(3)}, 1.1), "density must be a number from 0 to 1, got 1.1"),
    "density nan": (lambda: keep_density({"a": np.ones(3)}, float("nan")), "density must be .* got nan"),
    "scores of density": (lambda: keep_density([1], 0.5), "scores must be a mapping .* got list"),  # pyright: ignore[reportArgumentType]
    "dense arch": (lambda: dense_cycles(two_layers()[0], None), "arch must be a Phantom2D"),  # pyright: ignore[reportArgumentType]
    "dense layers": (lambda: dense_cycles([], ARCH), "layers must"),
    "exact layers": (lambda: exact_cycles(None, {}, ARCH), "layers must"),  # pyright: ignore[reportArgumentType]
    "exact names": (
        lambda: exact_cycles([two_layers()[0][1]] * 2, {}, ARCH),
        "layers must have unique names, got b twice",
    ),
    "exact arch": (lambda: exact_cycles(two_layers()[0], two_layers()[1], None), "arch must be"),  # pyright: ignore[reportArgumentType]
    "exact mask lacks": (
        lambda: exact_cycles(two_layers()[0], {"a": NAN}, ARCH),
        "masks must hold .* lacking: b, unknown: none",
    ),  # pyright: ignore[reportArgumentType]
    "exact mask": (lambda: exact_cycles(two_layers()[0], with_mask("b", NAN), ARCH), r"masks\['b'\] must not hold NaN"),
    "exact shape": (
        lambda: exact_cycles(two_layers()[0], with_mask("b", NAN.T > 0), ARCH),
        r"masks\['b'\] must .* got \(10, 16\)",
    ),
    "budget": (
        lambda: keep_cycles(two_layers()[1], two_layers()[0], ARCH, 0),
        "cycles must be a positive number, got 0",
    ),
    "budget start": (
        lambda: keep_cycles(two_layers()[1], two_layers()[0], ARCH, 9, 0),
        "start must be a positive integer, got 0",
    ),
    "budget scores": (lambda: keep_cycles({"a": NAN}, two_layers()[0], ARCH, 9), "scores must hold .* lacking: b"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "method", [GlobalMagnitude(), UniformMagnitude(), MacAwareMagnitude(), NM(1, 2), CycleAware()], ids=repr
)
def test_methods_take_masked_networks_alone(method: Method) -> None:
    with pytest.raises(ValueError, match="model must be a Masked network, got Net"):
        method.scores(Net(nnx.Rngs(0)), ())  # pyright: ignore[reportArgumentType]
