"""Masked networks: which networks can be masked, what masks, logits and straight-through gradients do in them."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from phantom_jax import trace
from phantom_jax.sparsity import Keep, Mask, Masked


class Net(nnx.Module):
    """Layers in a list, with running statistics, and dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.convs = nnx.List([nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images: jax.Array, scale: float = 1.0) -> jax.Array:
        values = nnx.relu(self.norm(self.convs[0](images)))
        return scale * self.head(self.dropout(values.mean((1, 2))))


RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((4, 6, 6, 1)), jnp.float32)
VALUES = RNG.normal(size=(2, 4)).astype(np.float32)


def make() -> Masked:
    return Masked(Net(nnx.Rngs(0)), IMAGES)


def linear(**options: Any) -> Masked:
    return Masked(nnx.Linear(4, 3, rngs=nnx.Rngs(0), **options), VALUES)


def drawn(model: Masked) -> dict[str, np.ndarray]:
    """Draws masks."""
    rng = np.random.default_rng(1)
    return {name: rng.random(weights.shape) < 0.5 for name, weights in model.weights().items()}


def numbers(model: nnx.Module) -> list[np.ndarray]:
    """Returns all that a module's state holds, keys as numbers."""
    leaves = jax.tree.leaves(nnx.state(model))
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [np.asarray(jax.random.key_data(a) if key else a) for a, key in zip(leaves, is_key, strict=True)]


def test_layers_are_found_and_named_by_where_they_are() -> None:
    model = make()
    assert model.names == ("convs.0", "head")
    shapes = [(3, 3, 1, 4), (4, 3)]
    assert [values.shape for values in model.weights().values()] == shapes
    assert [leaf.shape for leaf in jax.tree.leaves(nnx.state(model, Mask))] == shapes
    assert model.density() == 1.0


def test_finding_layers_leaves_the_network_as_it_was() -> None:
    network = Net(nnx.Rngs(0))
    before = numbers(network)
    model = Masked(network, IMAGES)
    assert model.network is network
    assert (network.norm.use_running_average, network.dropout.deterministic) == (False, False)
    jax.tree.map(np.testing.assert_array_equal, before, numbers(network))


def test_masks_act_in_the_outputs_and_in_what_is_traced() -> None:
    model = make()
    model.eval()
    dense, masks = model(IMAGES), drawn(model)
    model.set_masks(masks)
    by_hand = Net(nnx.Rngs(0))
    by_hand.eval()
    for layer, name in zip([*by_hand.convs, by_hand.head], model.names, strict=True):
        layer.kernel.set_value(layer.kernel.get_value() * masks[name])
    np.testing.assert_array_equal(model(IMAGES), by_hand(IMAGES))
    np.testing.assert_array_equal(model(IMAGES, scale=2.0), by_hand(IMAGES, scale=2.0))
    assert not np.allclose(dense, model(IMAGES))
    for layer in model.trace(IMAGES):
        np.testing.assert_array_equal(layer.weights, masks[str(layer.name)])
    kept = sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values())
    np.testing.assert_allclose(model.density(), kept, rtol=1e-6)
    model.set_masks({name: np.ones(mask.shape) for name, mask in masks.items()})  # what was taken is given back
    np.testing.assert_array_equal(model(IMAGES), dense)


def test_running_statistics_and_dropout_of_the_network_move_in_training_alone() -> None:
    model, by_hand = make(), Net(nnx.Rngs(0))
    model.train()
    nnx.jit(lambda model, images: model(images))(model, IMAGES)
    by_hand(IMAGES)
    network: Any = model.network
    np.testing.assert_allclose(network.norm.mean.get_value(), by_hand.norm.mean.get_value(), rtol=1e-5, atol=1e-7)
    assert np.abs(network.norm.mean.get_value()).max() > 0
    assert network.dropout.rngs.count.get_value() == 1
    before = numbers(model)
    model.trace(IMAGES)
    jax.tree.map(np.testing.assert_array_equal, before, numbers(model))
    assert (network.norm.use_running_average, network.dropout.deterministic) == (False, False)


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradients_reach_masked_weights_only_straight_through(straight_through: bool) -> None:
    model = linear()
    mask = drawn(model)["kernel"]
    model.set_masks({"kernel": mask})
    model.straight_through = straight_through
    gradient: Any = nnx.grad(lambda model: model(VALUES).sum())(model)
    dense = np.repeat(VALUES.sum(0)[:, None], 3, axis=1)
    found = gradient["network"]["kernel"].get_value()
    np.testing.assert_allclose(found, dense if straight_through else dense * mask, rtol=1e-5)
    network: Any = model.network
    np.testing.assert_array_equal(model(VALUES), VALUES @ (network.kernel.get_value() * mask))


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradients_of_logits_are_those_of_relaxed_bits(straight_through: bool) -> None:
    model = linear()
    logits = RNG.normal(0, 2, (4, 3))
    model.learn({"kernel": logits})
    model.straight_through = straight_through
    gradient: Any = nnx.grad(lambda model: model(VALUES).sum(), argnums=nnx.DiffState(0, Keep))(model)
    relaxed = 1 / (1 + np.exp(-2 * logits))
    expected = VALUES.sum(0)[:, None] * model.weights()["kernel"] * 2 * relaxed * (1 - relaxed)
    np.testing.assert_allclose(gradient["keep"]["kernel"].get_value(), expected, rtol=1e-4, atol=1e-6)


def test_drawn_masks_have_their_probabilities() -> None:
    model = linear(use_bias=False)
    logits = RNG.normal(0, 2, (4, 3))
    model.learn({"kernel": logits})
    (probability,) = map(np.asarray, model.probabilities())
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    np.testing.assert_allclose(model.density(), probability.mean(), rtol=1e-6)
    eye, weights = jnp.eye(4), np.asarray(model.weights()["kernel"])
    kernels = np.asarray(jax.vmap(lambda key: model(eye, key=key))(jax.random.split(jax.random.key(0), 4000)))
    np.testing.assert_array_equal(kernels, np.where(kernels != 0, weights, 0))  # bits are hard
    frequency = (kernels != 0).mean(0)
    assert (np.abs(frequency - probability) < 5 * np.sqrt(probability * (1 - probability) / 4000)).all()
    kept = (kernels != 0).reshape(4000, -1).astype(float)
    assert np.abs(np.corrcoef(kept.T) - np.eye(12)).max() < 0.1  # and independent


def test_without_a_key_what_is_likelier_stays() -> None:
    model = linear(use_bias=False)
    logits = RNG.normal(0, 2, (4, 3))
    model.learn({"kernel": logits})
    np.testing.assert_array_equal(np.asarray(model(jnp.eye(4))) != 0, logits > 0)
    (layer,) = model.trace(VALUES)
    np.testing.assert_array_equal(layer.weights, logits > 0)
    model.set_masks({"kernel": logits < 0})  # ends it
    assert not model.keep
    np.testing.assert_array_equal(np.asarray(model(jnp.eye(4), key=jax.random.key(0))) != 0, logits < 0)


@pytest.mark.parametrize("straight_through", [False, True])
def test_weights_keep_their_type(straight_through: bool) -> None:
    model = linear(param_dtype=jnp.bfloat16)
    model.straight_through = straight_through
    values = jnp.asarray(VALUES, jnp.bfloat16)
    assert model(values).dtype == jnp.bfloat16
    model.learn({"kernel": np.ones((4, 3))})
    assert model(values, key=jax.random.key(0)).dtype == jnp.bfloat16


def test_state_goes_through_a_checkpoint(tmp_path: pathlib.Path) -> None:
    model, other = make(), make()
    model.set_masks(drawn(model))
    model.learn({name: RNG.normal(size=weights.shape) for name, weights in model.weights().items()})
    other.learn({name: np.zeros(weights.shape) for name, weights in model.weights().items()})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "one", nnx.state(model))
        checkpointer.wait_until_finished()
        nnx.update(other, checkpointer.restore(tmp_path / "one", nnx.state(other)))
    jax.tree.map(np.testing.assert_array_equal, numbers(model), numbers(other))
    np.testing.assert_array_equal(model(IMAGES, key=jax.random.key(2)), other(IMAGES, key=jax.random.key(2)))


class Called(nnx.Module):
    """Layers of all names and places, run by a function."""

    def __init__(self, run: Callable[[Any, jax.Array], jax.Array], **parts: Any) -> None:
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = run

    def __call__(self, values: jax.Array) -> jax.Array:
        return self.run(self, values)


def square() -> nnx.Linear:
    return nnx.Linear(4, 4, rngs=nnx.Rngs(0))


def shared() -> Called:
    network: Any = Called(lambda self, x: self.b(self.a(x)), a=square(), b=square())
    network.b.kernel = network.a.kernel
    return network


def scanned() -> Called:
    stack = nnx.vmap(lambda key: nnx.Linear(4, 4, rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 3))
    carried = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    return Called(lambda self, x: carried(x, self.stack), stack=stack)


def parameter(seed: int = 0) -> nnx.Param:
    return nnx.Param(jax.random.normal(jax.random.key(seed), (4, 4)))


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (
            Called(
                lambda self, x: self.steps(self.parts["x.y"](self.items(self.keep(self.value(x))))),
                value=square(),
                keep=square(),
                items=square(),
                parts=nnx.Dict({"x.y": square()}),
                steps=nnx.Sequential(square(), nnx.relu, square()),
            ),
            ("value", "keep", "items", "parts.x.y", "steps.layers.0", "steps.layers.2"),
        ),
        (Called(lambda self, x: nnx.remat(lambda layer, x: layer(x))(self.layer, x), layer=square()), ("layer",)),
        (Called(lambda self, x: self.layer(x[:, None])[:, 0], layer=square()), ("layer",)),  # positions
        (
            Called(lambda self, x: x @ (self.w[...] * self.gain[...]), w=parameter(), gain=nnx.Param(jnp.array(2.0))),
            ("w",),
        ),
        (Called(lambda self, x: self.body(x), body=Masked(square(), VALUES)), ("body.network",)),
    ],
    ids=["names", "remat", "positions", "scaled", "masked within"],
)
def test_networks_of_all_kinds_are_masked(network: nnx.Module, names: tuple[str, ...]) -> None:
    model = Masked(network, VALUES)
    assert model.names == names
    masks = drawn(model)
    model.set_masks(masks)
    for layer in model.trace(VALUES):
        np.testing.assert_array_equal(layer.weights, masks[str(layer.name)])
    model.learn({name: np.full((4, 4), 9.0) for name in names})
    gradient: Any = nnx.grad(lambda model: model(VALUES).sum(), argnums=nnx.DiffState(0, Keep))(model)
    assert set(gradient["keep"]) == set(names)


def test_a_masked_network_is_part_of_another() -> None:
    outer: Any = Called(lambda self, x: self.head(self.body(x)), body=make(), head=nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    outer.body.set_masks(drawn(outer.body))
    gradient = nnx.jit(nnx.grad(lambda outer: outer(IMAGES).sum()))(outer)
    assert np.abs(gradient["body"]["network"]["head"]["kernel"].get_value()).max() > 0
    assert outer.body.network.norm.mean.get_value().any()
    outer.eval()
    layers = {str(layer.name): layer for layer in trace(outer, IMAGES)}
    np.testing.assert_array_equal(layers["body.network.head"].weights, drawn(outer.body)["head"])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, "network must be a flax.nnx.Module that can be called, got NoneType"),
        (lambda x: x, "network must be a flax.nnx.Module that can be called, got function"),
        (nnx.Dict(a=square()), "network must be a flax.nnx.Module that can be called, got Dict"),
        (nnx.BatchNorm(4, rngs=nnx.Rngs(0)), "network must have a convolution or dense product"),
        (
            Called(lambda self, x: self.a(self.a(x)), a=square()),
            "network must not use weights twice; a#2 .* those of a",
        ),
        (shared(), "network must not use weights twice; b has those of a"),
        (
            Called(lambda self, x: x @ (self.a[...] * self.b[...]), a=parameter(), b=parameter()),
            r"layer \S+ of shape \(4, 4\) has no such parameter",
        ),
        (
            Called(lambda self, x: x @ self.a[...].reshape(4, 4), a=nnx.Param(jnp.ones(16))),
            r"layer \S+ of shape \(4, 4\) has a parameter of shape \(16,\)",
        ),
        (scanned(), "network must have a parameter with the weights of each layer"),
        (Called(lambda self, x: x @ self.w[...].T, w=parameter()), "those of w are moved or shifted"),
        (
            Called(lambda self, x: x @ (self.w[...] - self.w[...].mean()), w=parameter()),
            "those of w are moved or shifted",
        ),
        (Called(lambda self, x: x @ self.w[...].T, w=nnx.Param(jnp.zeros((4, 4)))), "those of w are moved or shifted"),
        (
            Called(
                lambda self, x: jax.lax.cond(self.a.kernel.sum() > 8, self.a, lambda x: self.b(x), x),
                a=nnx.Linear(4, 4, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0)),
                b=square(),
            ),
            "network must run the same layers whatever its weights are; those of a changed",
        ),
    ],
)
def test_networks_that_cannot_be_masked_are_refused(network: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masked(network, VALUES)


def test_weights_that_are_an_argument_are_no_parameter_of_the_same_name() -> None:
    class Given(nnx.Module):
        def __init__(self) -> None:
            self.kernel = nnx.Param(jnp.ones((4, 4)))

        def __call__(self, values: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
            return values @ weights["kernel"]

    with (
        pytest.warns(UserWarning, match="both operands derive from activations"),
        pytest.raises(ValueError, match="network must have a convolution or dense product; tracing it found none"),
    ):
        Masked(Given(), VALUES, {"kernel": jnp.ones((4, 4))})


@pytest.mark.parametrize("method", ["learn", "set_masks"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "must be a mapping from names of layers to arrays, got NoneType"),
        ({}, "must be a mapping from names of layers to arrays, got an empty one"),
        ({"other": np.ones((4, 3))}, r"for each layer \(kernel\) and no other; lacking: kernel, unknown: other"),
        ({"kernel": np.ones((3, 4))}, r"\['kernel'\] must be of the shape .* \(4, 3\), got \(3, 4\)"),
        ({"kernel": np.full((4, 3), np.nan)}, r"\['kernel'\] must not hold NaN, got 12"),
        ({"kernel": np.full((4, 3), "a")}, r"\['kernel'\] must hold numbers or booleans, got dtype <U1"),
        ({"kernel": [[1], [1, 2]]}, r"\['kernel'\] must be an array, got a ragged sequence"),
    ],
)
def test_bad_masks_and_logits_are_refused(method: str, values: Any, message: str) -> None:
    argument = {"learn": "logits", "set_masks": "masks"}[method]
    with pytest.raises(ValueError, match=f"^{argument}.*{message}"):
        getattr(linear(), method)(values)


def test_a_bad_key_is_refused() -> None:
    model = linear()
    model.learn({"kernel": np.ones((4, 3))})
    with pytest.raises(ValueError, match=r"key must be a random key from jax.random.key, got 'a'"):
        model(VALUES, key="a")  # pyright: ignore[reportArgumentType]
