"""Prices of activations, the activity that they are multiplied with, and what layers read."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles_from
from phantom_jax.sparsity import CycleAware, Masked, activation_prices, priced_activity
from phantom_jax.training import Phase, Settings, Trainer, evaluate
from phantom_jax.training.data import load, split
from phantom_jax.training.networks import mobilenet_small, vgg_small

ARCH = Phantom2D(rows=2, cols=2, inter_balance=False)
RNG = np.random.default_rng(0)
SEEN = RNG.random((2, 10, 10, 12)) < 0.1 + 0.8 * RNG.random(12)
CHANCES = (RNG.random((3, 3, 12, 8)) * 0.6).astype(np.float32)
LAYERS = {
    "one chunk for each channel": Layer.conv(CHANCES, SEEN, name="of"),
    "several channels in a chunk": Layer.conv(CHANCES[:1, :1], SEEN, name="of"),
    "several chunks for a channel": Layer.conv(np.tile(CHANCES, (2, 2, 1, 1))[:5, :5], SEEN, name="of"),
    "groups": Layer.conv(CHANCES[:, :, :3], SEEN, feature_group_count=4, name="of"),
    "depthwise": Layer.conv(np.tile(CHANCES[:, :, :1], 3)[..., :12], SEEN, feature_group_count=12, name="of"),
    "along chunks": Layer.dense(np.tile(CHANCES[0, 0], (10, 1)), SEEN[:, 0].reshape(2, -1), name="of"),
}


def cycles(layer: Layer, activations: np.ndarray) -> float:
    of = calibrate(dataclasses.replace(layer, activations=activations), ARCH)
    return float(expected_cycles_from(of, [jnp.asarray(layer.weights)]).sum())


FAST = ("one chunk for each channel", "along chunks")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in LAYERS]
)
def test_prices_say_what_fewer_ones_save(name: str) -> None:
    layer = LAYERS[name]
    seen, weights = np.asarray(layer.activations), np.asarray(layer.weights)
    prices = activation_prices([layer], {"of": weights}, ARCH)["of"]
    assert prices.shape == seen.shape[-1:]
    rng = np.random.default_rng(1)
    channels = np.arange(seen.shape[-1]) % 12
    for chosen in (channels >= 0, channels < 6):
        less = seen & ~(chosen & (rng.random(seen.shape) < 0.25))
        estimate = (prices * (seen & ~less).reshape(-1, len(prices)).mean(0)).sum()
        saved = cycles(layer, seen) - cycles(layer, less)
        assert estimate == pytest.approx(
            saved, rel=0.25 if layer.is_conv else 0.5
        )  # two positions alone for the dense one


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in LAYERS]
)
def test_channels_that_meet_no_weight_or_are_silent_have_no_price(name: str) -> None:
    layer = LAYERS[name]
    depth, groups = layer.weights.shape[-2], layer.feature_group_count
    weights, seen = np.asarray(layer.weights) * 0.9 + 0.05, np.array(layer.activations)
    meets = np.ones((groups, depth), bool)
    meets[-1, depth // 2 :] = False
    weights[..., depth // 2 :, -weights.shape[-1] // groups :] = 0
    seen[..., 0] = False
    prices = activation_prices([dataclasses.replace(layer, activations=seen)], {"of": weights}, ARCH)["of"]
    assert (prices[~meets.ravel()] < 1e-5 * prices.max()).all()  # but for rounding
    assert prices[0] == 0
    assert (prices[1:][meets.ravel()[1:]] > 0).mean() > 0.4


def test_activity_is_the_share_of_ones_whatever_their_size() -> None:
    values = 7.5 * jnp.asarray(SEEN, jnp.float32).at[..., 3].set(0)
    prices = np.arange(12)
    expected = (prices * (np.asarray(values) != 0).mean((0, 1, 2))).sum()
    assert float(priced_activity({"a": values}, {"a": prices})) == pytest.approx(expected, rel=1e-5)
    slope = jax.grad(lambda values: priced_activity({"a": values}, {"a": prices}))(jnp.asarray(SEEN * RNG.random(12)))
    assert np.isfinite(slope).all()
    uneven = jnp.asarray([[0.1], [1.0], [0.0], [-1.0]])
    slope = jax.grad(lambda values: priced_activity({"a": values}, {"a": np.ones(1)}))(uneven)
    assert slope[0, 0] > 0 > slope[1, 0] == -slope[3, 0]  # the small one shrinks, large ones grow


class Net(nnx.Module):
    """Layers called in several ways: as they are, checkpointed, and by einsum."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.second = nnx.Conv(4, 8, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Einsum("bhwc,ck->bhwk", (8, 3), rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        values = nnx.relu(self.norm(self.first(images)))
        values = jax.checkpoint(lambda values: nnx.relu(self.second(values)))(values)
        return self.drop(self.head(values)).mean((1, 2))


IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)


def test_inputs_are_what_trace_sees_and_a_call_with_them_does_what_one_without_does() -> None:
    model, other = Masked(Net(nnx.Rngs(0)), IMAGES), Masked(Net(nnx.Rngs(0)), IMAGES)
    for one in (model, other):
        one.learn(CycleAware().logits(one))
    call = nnx.jit(lambda model, images, key: model.with_inputs(images, key=key))
    outputs, inputs = call(model, IMAGES, jax.random.key(1))
    np.testing.assert_allclose(outputs, other(IMAGES, key=jax.random.key(1)), rtol=1e-5, atol=1e-6)
    for got, wanted in zip(jax.tree.leaves(nnx.state(model)), jax.tree.leaves(nnx.state(other)), strict=True):
        if not jnp.issubdtype(got.dtype, jax.dtypes.prng_key):  # running statistics, and how often streams were used
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert {name: values.shape for name, values in inputs.items()} == {
        "first": (4, 8, 8, 1),
        "second": (4, 8, 8, 4),
        "head": (4, 4, 4, 8),
    }
    model.eval()
    _, inputs = nnx.jit(lambda model, images: model.with_inputs(images))(model, IMAGES)
    for layer in model.trace(IMAGES):
        np.testing.assert_array_equal(
            np.asarray(inputs[str(layer.name)]).reshape(layer.activations.shape) != 0, layer.activations
        )


@pytest.mark.parametrize("make", [vgg_small, pytest.param(mobilenet_small, marks=pytest.mark.slow)])
def test_the_gradient_of_activity_reaches_what_comes_before_a_layer(make: Any) -> None:
    model = Masked(make((16, 16, 1), 3, nnx.Rngs(0)), np.zeros((1, 16, 16, 1), np.float32))
    images = np.random.default_rng(0).random((4, 16, 16, 1)).astype(np.float32)
    last = model.names[-2]

    def activity(model: Masked) -> jax.Array:
        _, inputs = model.with_inputs(images)
        return priced_activity({last: inputs[last]}, {last: np.ones(inputs[last].shape[-1])})

    slopes = dict(nnx.to_flat_state(nnx.jit(nnx.grad(activity))(model)))
    paths = model.paths
    before = model.names.index(last)
    for index, name in enumerate(model.names):
        assert np.asarray(slopes["network", *paths[name]].get_value()).any() == (index < before)
    for kind in ("scale", "bias"):  # of the normalization right before
        assert np.asarray(slopes["network", f"{model.names[before - 1]}_norm", kind].get_value()).any()


class Hidden(nnx.Module):
    """A layer that runs in a condition."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.only = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, values: jax.Array) -> jax.Array:
        kernel = self.only.kernel.get_value()
        return jax.lax.cond(values.sum() > 0, lambda: values @ kernel, lambda: values @ kernel + 1)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fn must contract the weights of .*only.* outside of conditions"):
        Masked(Hidden(nnx.Rngs(0)), np.ones((2, 3))).with_inputs(np.ones((2, 3)))
    layer = LAYERS["groups"]
    with pytest.raises(ValueError, match=r"weights must hold an array for each layer \(of\)"):
        activation_prices([layer], {"other": CHANCES}, ARCH)
    with pytest.raises(ValueError, match=r"prices\['a'\] must be of the shape .*\(12,\), got \(3,\)"):
        priced_activity({"a": jnp.asarray(SEEN)}, {"a": np.ones(3)})


@pytest.mark.slow
def test_digits_take_fewer_cycles_at_like_accuracy() -> None:
    digits = load("digits", None, None)
    splits = split(digits, 0, 0, 5, 0.1)
    found = {}
    for weight in (0.0, 1.0):
        dense = Phase(5 if weight else 11, 3e-3)  # as many epochs
        settings = Settings(dense, Phase(4, 1e-3), Phase(2, 1e-3), activation_penalty=weight)
        trainer = Trainer(
            settings, lambda rngs: vgg_small(digits.images.shape[1:], 10, rngs, stages=((8,), (16,))), splits, ARCH
        )
        trainer.run(lambda *_: None, lambda _: {}, None)
        found[weight] = evaluate(trainer.model, splits.test, ARCH, 64)
    assert found[1.0].cycle_shares.mean() < 0.9 * found[0.0].cycle_shares.mean()
    assert found[1.0].accuracy > found[0.0].accuracy - 0.02
