"""Masked networks, methods, budgets and the penalty on expected cycles."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles_from, simulate
from phantom_jax.sparsity import (
    NM,
    CycleAware,
    GlobalMagnitude,
    Keep,
    MacAwareMagnitude,
    Mask,
    Masked,
    UniformMagnitude,
    cubic,
    cycle_penalty,
    dense_cycles,
    exact_cycles,
    keep_best,
    keep_cycles,
    keep_density,
    macs_per_weight,
)
from tests.cases import layers as drawn_layers

ARCH = Phantom2D(rows=2, cols=2)


class Net(nnx.Module):
    """Layers in a list, with running statistics, and dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        convs = [nnx.Conv(1, 4, (3, 3), rngs=rngs), nnx.Conv(4, 8, (3, 3), strides=2, rngs=rngs)]
        self.convs = nnx.List(convs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        values = nnx.relu(self.convs[0](images))
        values = nnx.relu(self.norm(self.convs[1](values)))
        return self.head(self.dropout(values.mean((1, 2))))


IMAGES = np.random.default_rng(0).random((4, 6, 6, 1)).astype(np.float32)


def make() -> Masked:
    return Masked(Net(nnx.Rngs(0)), IMAGES)


def test_layers_are_found_and_named_by_where_they_are() -> None:
    model = make()
    assert model.names == ("convs.0", "convs.1", "head")
    assert [values.shape for values in model.weights().values()] == [(3, 3, 1, 4), (3, 3, 4, 8), (8, 3)]
    assert [leaf.shape for leaf in jax.tree.leaves(nnx.state(model, Mask))] == [(3, 3, 1, 4), (3, 3, 4, 8), (8, 3)]
    assert model.density() == 1.0
    network: Any = model.network
    assert network.norm.use_running_average is False  # tracing leaves it in training
    np.testing.assert_array_equal(network.norm.mean.get_value(), np.zeros(8))


def test_masks_act_in_the_outputs_and_in_what_is_traced() -> None:
    model = make()
    model.eval()
    dense = model(IMAGES)
    masks = {name: np.random.default_rng(1).random(w.shape) < 0.5 for name, w in model.weights().items()}
    model.set_masks(masks)
    by_hand = Net(nnx.Rngs(0))
    by_hand.eval()
    for conv, name in zip([*by_hand.convs, by_hand.head], model.names, strict=True):
        conv.kernel.set_value(conv.kernel.get_value() * masks[name])
    np.testing.assert_array_equal(model(IMAGES), by_hand(jnp.asarray(IMAGES)))
    assert not np.allclose(dense, model(IMAGES))
    for layer in model.trace(IMAGES):
        np.testing.assert_array_equal(layer.weights, masks[str(layer.name)])
    kept = sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values())
    np.testing.assert_allclose(model.density(), kept, rtol=1e-6)
    model.set_masks({name: np.ones(mask.shape) for name, mask in masks.items()})  # what was taken is given back
    np.testing.assert_array_equal(model(IMAGES), dense)


def test_running_statistics_of_the_network_move_in_training_alone() -> None:
    model = make()
    model.train()
    model(IMAGES)
    network: Any = model.network
    before = np.asarray(network.norm.mean.get_value())
    assert np.abs(before).max() > 0
    model.trace(IMAGES)
    np.testing.assert_array_equal(network.norm.mean.get_value(), before)


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradients_reach_masked_weights_only_straight_through(straight_through: bool) -> None:
    model = make()
    model.eval()
    rng = np.random.default_rng(7)
    model.set_masks({name: rng.random(w.shape) < 0.5 for name, w in model.weights().items()})
    model.straight_through = straight_through
    gradient: Any = nnx.grad(lambda model: model(IMAGES).sum(), argnums=nnx.DiffState(0, nnx.Param))(model)
    of_head = np.asarray(gradient["network"]["head"]["kernel"].get_value())
    taken = np.asarray(model.masks["head"].get_value()) == 0
    assert (of_head[~taken] != 0).any()
    assert (of_head[taken] != 0).any() == straight_through


def test_drawn_masks_have_their_probabilities_and_gradients_reach_logits() -> None:
    model = make()
    model.eval()
    rng = np.random.default_rng(2)
    model.learn({name: rng.normal(0, 2, w.shape) for name, w in model.weights().items()})
    assert [p.shape for p in model.probabilities()] == [(3, 3, 1, 4), (3, 3, 4, 8), (8, 3)]
    kernels = jax.vmap(lambda key: model._kernels(key)[("head", "kernel")])(jax.random.split(jax.random.key(0), 4000))
    frequency = (np.asarray(kernels) != 0).mean(0)
    probability = np.asarray(model.probabilities()[2])
    assert np.abs(frequency - probability).max() < 5 * np.sqrt(0.25 / 4000)
    likelier = model._kernels(None)[("head", "kernel")]
    np.testing.assert_array_equal(np.asarray(likelier) != 0, probability > 0.5)
    gradient = nnx.grad(
        lambda model: (model(IMAGES, key=jax.random.key(1)) ** 2).sum(), argnums=nnx.DiffState(0, Keep)
    )(model)
    assert all((leaf != 0).any() and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    model.set_masks({name: w > 0 for name, w in model.weights().items()})
    assert not model.keep


class Twice(nnx.Module):
    """Uses its weights twice."""

    def __init__(self) -> None:
        self.dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, values: jax.Array) -> jax.Array:
        return self.dense(self.dense(values))


class Scaled(nnx.Module):
    """Makes its weights of two parameters."""

    def __init__(self) -> None:
        self.a, self.b = nnx.Param(jnp.ones((4, 4))), nnx.Param(jnp.ones((4, 4)))

    def __call__(self, values: jax.Array) -> jax.Array:
        return values @ (self.a[...] * self.b[...])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Twice(), "must not use weights twice"),
        (Scaled(), "must have a parameter with the weights of each layer"),
        (nnx.BatchNorm(4, rngs=nnx.Rngs(0)), "tracing it found none"),
    ],
)
def test_networks_that_cannot_be_masked_are_refused(network: nnx.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masked(network, np.ones((2, 4), np.float32))


@hypothesis.given(drawn_layers())
@hypothesis.settings(max_examples=25)
def test_macs_of_weights_add_up_to_those_of_the_exact_model(drawn: tuple[Layer, object]) -> None:
    layer, _ = drawn
    macs = (macs_per_weight(layer) * (np.asarray(layer.weights) != 0)).sum()
    np.testing.assert_allclose(macs, simulate(layer, ARCH).layers[0].effectual_macs.mean(), rtol=1e-6)


def test_scores_of_magnitude() -> None:
    model = make()
    weights = {name: np.asarray(w) for name, w in model.weights().items()}
    layers = model.trace(IMAGES)
    of_global = GlobalMagnitude().scores(model, layers)
    for name, values in weights.items():
        np.testing.assert_array_equal(of_global[name], np.abs(values))
    masks = keep_density(UniformMagnitude().scores(model, layers), 0.25)
    assert [int(mask.sum()) for mask in masks.values()] == [9, 72, 6]
    for name, mask in masks.items():
        assert np.abs(weights[name])[mask].min() >= np.abs(weights[name])[~mask].max()
    aware = MacAwareMagnitude().scores(model, layers)
    macs = {str(layer.name): macs_per_weight(layer) for layer in layers}
    some = macs["head"] > 0
    np.testing.assert_allclose(aware["head"][some], weights["head"][some] ** 2 / macs["head"][some], rtol=1e-5)
    np.testing.assert_array_equal(aware["head"][~some], 0)
    logits = CycleAware().logits(model)
    assert all(np.corrcoef(logits[name].ravel(), np.abs(w).ravel())[0, 1] > 0.8 for name, w in weights.items())


def test_n_of_m_weights_stay_in_every_group_and_other_layers_are_dense() -> None:
    model = make()
    kept = NM(1, 4).scores(model, ())
    np.testing.assert_array_equal(kept["convs.0"], 1)  # one channel
    groups = kept["convs.1"].reshape(3, 3, 1, 4, 8)
    np.testing.assert_array_equal(groups.sum(3), 1)
    magnitudes = np.abs(np.asarray(model.weights()["convs.1"])).reshape(3, 3, 1, 4, 8)
    np.testing.assert_array_equal(groups.argmax(3), magnitudes.argmax(3))
    np.testing.assert_array_equal(kept["head"].reshape(2, 4, 3).sum(1), 1)
    for n, m in ((0, 4), (4, 4), (1.5, 4), (1, 0)):
        with pytest.raises(ValueError, match=r"sparsity\.[nm] must"):
            NM(n, m)  # pyright: ignore[reportArgumentType]


@hypothesis.given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_the_best_are_kept_and_of_equals_the_first(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    split = data.draw(st.integers(0, len(values)))
    masks = keep_best({"a": np.array(values[:split]), "b": np.array(values[split:])}, count)
    kept = np.concatenate([masks["a"], masks["b"]])
    wanted = sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]
    assert np.flatnonzero(kept).tolist() == sorted(wanted)


def test_masks_meet_a_budget_of_exact_cycles() -> None:
    rng = np.random.default_rng(3)
    layers = [
        Layer.conv(np.ones((3, 3, 8, 16)), rng.random((2, 12, 12, 8)) < 0.6, name="a"),
        Layer.dense(np.ones((16, 10)), rng.random((2, 16)) < 0.5, name="b"),
    ]
    scores = {str(layer.name): rng.random(layer.weights.shape) for layer in layers}
    ones = {name: np.ones(values.shape, bool) for name, values in scores.items()}
    most = exact_cycles(layers, ones, ARCH)
    assert most == simulate(layers, ARCH).cycles.mean()
    for share in (0.1, 0.4, 0.8):
        masks = keep_cycles(scores, layers, ARCH, share * most)
        assert exact_cycles(layers, masks, ARCH) == pytest.approx(share * most, rel=0.02)
    masks = keep_cycles(scores, layers, ARCH, 2 * most)
    assert all(mask.all() for mask in masks.values())
    assert dense_cycles(layers, ARCH) == sum(layer.dense_cycles for layer in simulate(layers, ARCH).layers)


def test_the_gradual_schedule_begins_and_ends_where_it_should() -> None:
    assert [cubic(1.0, 0.2, progress) for progress in (-1.0, 0.0, 0.5, 1.0, 3.0)] == pytest.approx(
        [1, 1, 0.3, 0.2, 0.2]
    )


LAYER = Layer.conv(np.ones((3, 3, 2, 6)), np.random.default_rng(4).random((1, 8, 8, 2)) < 0.7, name="only")


def test_the_penalty_adds_its_gradient_and_its_weight_follows_the_target() -> None:
    calibration, dense = calibrate(LAYER, ARCH), dense_cycles([LAYER], ARCH)
    logits = {"only": jnp.asarray(np.random.default_rng(5).normal(0, 1, LAYER.weights.shape), jnp.float32)}

    def share(logits: Any) -> jax.Array:
        return expected_cycles_from(calibration, [jax.nn.sigmoid(logits["only"])]).sum() / dense

    value, slope = jax.value_and_grad(share)(logits)
    plain = cycle_penalty(dense, target=0.5 * float(value), weight=3.0, gain=0.0, pull=0.0)
    zeros = jax.tree.map(jnp.zeros_like, logits)
    state: Any
    updates: Any
    updates, state = plain.update(zeros, plain.init(logits), logits, calibration=calibration)
    np.testing.assert_allclose(updates["only"], 3 * slope["only"], rtol=1e-5)
    np.testing.assert_allclose(state.cycles, value, rtol=1e-6)
    for factor, grows in ((0.5, True), (2.0, False)):
        penalty = cycle_penalty(dense, lambda step, factor=factor: factor * value + 0 * step, gain=0.1, pull=1.0)
        _, state = penalty.update(zeros, penalty.init(logits), logits, calibration=calibration)
        assert (state.multiplier > 1) == grows
        assert state.step == 1


def test_a_toy_task_meets_its_target() -> None:
    """Weights that the task wants to keep, more or less, against cycles: the controller finds the price."""
    calibration, dense = calibrate(LAYER, ARCH), dense_cycles([LAYER], ARCH)
    worth = jnp.asarray(np.random.default_rng(6).random(LAYER.weights.shape), jnp.float32)
    logits = {"only": jnp.full(LAYER.weights.shape, 2.0)}
    first = expected_cycles_from(calibration, [jax.nn.sigmoid(logits["only"])]).sum() / dense
    target = 0.4 * float(first)
    optimizer = optax.chain(cycle_penalty(dense, target), optax.adam(0.1))

    @jax.jit
    def step(logits: Any, state: Any) -> tuple[Any, Any]:
        gradient = jax.grad(lambda logits: -(worth * jax.nn.sigmoid(logits["only"])).mean())(logits)
        updates, state = optimizer.update(gradient, state, logits, calibration=calibration)
        return optax.apply_updates(logits, updates), state

    state: Any = optimizer.init(logits)
    for _ in range(400):
        logits, state = step(logits, state)
    assert float(state[0].cycles) == pytest.approx(target, rel=0.05)
    kept = np.asarray(logits["only"]) > 0
    assert np.asarray(worth)[kept].mean() > np.asarray(worth)[~kept].mean() + 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cycle_penalty(0, 0.5), "dense_cycles must be a positive number, got 0"),
        (lambda: cycle_penalty(10, 1.5), "target must be a number above 0 and at most 1"),
        (lambda: cycle_penalty(10, 0.5, weight=-1), "weight must be a positive number"),
        (lambda: cycle_penalty(10, 0.5, gain=-1), "gain must be a number of 0 or more"),
        (lambda: cycle_penalty(10, 0.5, pull=float("nan")), "pull must be a number of 0 or more"),
        (lambda: _update(None, calibrate(LAYER, ARCH)), "params must be the logits"),
        (lambda: _update({"only": jnp.zeros((3, 3, 2, 6))}, None), "calibration must be what calibrate returned"),
        (lambda: _update({"other": jnp.zeros((3, 3, 2, 6))}, calibrate(LAYER, ARCH)), "its name; only lack"),
    ],
)
def test_bad_input_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def _update(logits: Any, calibration: Any) -> None:
    penalty = cycle_penalty(10, 0.5)
    penalty.update(logits, penalty.init(logits), logits, calibration=calibration)
