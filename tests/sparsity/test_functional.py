"""Masks for functions of a pytree: weights are found in any layout, and come back where they were."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from phantom_jax import Phantom2D, calibrate
from phantom_jax.sparsity import (
    CycleAware,
    LayerWeights,
    Masked,
    additive_adam,
    cycle_penalty,
    dense_cycles,
    draw_masks,
    first_logits,
    keep_cycles,
)

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(3, 6, 6, 2)), jnp.float32)
PARAMS: dict[str, Any] = {
    "conv": jnp.asarray(RNG.normal(size=(4, 2, 3, 3)), jnp.float32),  # OIHW
    "mix": [{"w": jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32), "b": jnp.ones(4)}],  # [out, in], square
    "heads": jnp.asarray(RNG.normal(size=(4, 2, 3)), jnp.float32),  # [in, heads, size]
    "head": jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32),
}
SHAPES = {"conv": (3, 3, 2, 4), "mix.0": (4, 4), "heads": (4, 6), "head": (6, 5)}


def network(params: Any, images: jax.Array) -> jax.Array:
    values = lax.conv_general_dilated(
        images, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    values = jax.nn.relu(values).mean((1, 2))
    values = jax.vmap(lambda one: params["mix"][0]["w"] @ one)(values) + params["mix"][0]["b"]
    return jnp.einsum("bc,chs->bhs", values, params["heads"]).reshape(-1, 6) @ params["head"]


@functools.cache
def found() -> LayerWeights:
    return LayerWeights.find(network, PARAMS, IMAGES[:1])


def test_weights_are_found_in_any_layout_and_have_that_of_their_layers() -> None:
    weights = found().of(PARAMS)
    assert {name: array.shape for name, array in weights.items()} == SHAPES
    np.testing.assert_array_equal(weights["conv"], PARAMS["conv"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(weights["mix.0"], PARAMS["mix"][0]["w"].T)
    np.testing.assert_array_equal(weights["heads"], PARAMS["heads"].reshape(4, 6))


def test_weights_come_back_where_they_were() -> None:
    back = found().put(PARAMS, found().of(PARAMS))
    jax.tree.map(np.testing.assert_array_equal, back, PARAMS)
    zeros = found().put(PARAMS, {name: np.zeros(shape) for name, shape in SHAPES.items()})
    assert not any(jnp.any(array) for array in found().of(zeros).values())
    np.testing.assert_array_equal(zeros["mix"][0]["b"], PARAMS["mix"][0]["b"])


def test_masks_are_those_of_the_layers_that_run() -> None:
    masks = {name: RNG.random(shape) < 0.5 for name, shape in SHAPES.items()}
    for layer in found().layers(found().masked(PARAMS, masks), IMAGES):
        np.testing.assert_array_equal(layer.weights, masks[str(layer.name)])


def test_layers_are_left_out_by_name() -> None:
    kernels = LayerWeights.find(network, PARAMS, IMAGES[:1], leave_out=("conv", "head"))
    assert kernels.names == ("mix.0", "heads")
    assert [layer.name for layer in kernels.layers(PARAMS, IMAGES)] == ["mix.0", "heads"]
    masked = kernels.masked(PARAMS, {"mix.0": np.zeros((4, 4)), "heads": np.ones((4, 6))})
    assert masked["conv"] is PARAMS["conv"]
    assert not masked["mix"][0]["w"].any()


def test_a_loop_without_flax_learns_masks_of_fewer_cycles() -> None:
    arch = Phantom2D(rows=2, cols=2, inter_balance=False)
    kernels = LayerWeights.find(network, PARAMS, IMAGES[:1], leave_out=("conv", "head"))
    layers = kernels.layers(PARAMS, IMAGES)
    dense, calibration = dense_cycles(layers, arch), calibrate(layers, arch)
    logits = jax.tree.map(jnp.float32, first_logits(kernels.of(PARAMS)))
    optimizer = optax.chain(cycle_penalty(dense, 0.3), additive_adam(0.2))
    state = optimizer.init(logits)

    @jax.jit
    def step(logits: Any, state: Any, key: Any) -> Any:
        def loss(logits: Any) -> jax.Array:
            return (network(kernels.masked(PARAMS, draw_masks(logits, key)), IMAGES) ** 2).mean()

        updates, state = optimizer.update(jax.grad(loss)(logits), state, logits, calibration=calibration)
        return optax.apply_updates(logits, updates), state

    shares = []
    for index in range(20):
        logits, state = step(logits, state, jax.random.key(index))
        shares.append(float(state[0].cycles))
    assert shares[-1] < 0.8 * shares[0]
    assert set(keep_cycles(logits, layers, arch, dense)) == set(kernels.names)


def test_masked_networks_start_and_draw_alike() -> None:
    model = Masked(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), jnp.ones((1, 4)))
    logits = CycleAware().logits(model)
    for name, values in first_logits(model.weights()).items():
        np.testing.assert_array_equal(logits[name], values)


def test_drawn_masks_have_their_probabilities_and_a_gradient() -> None:
    logits = {"a": jnp.full(20_000, 1.0), "b": jnp.array([-0.1, 0.1])}
    masks = draw_masks(logits, jax.random.key(0))
    assert masks["a"].mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01)
    assert set(np.unique(masks["a"])) == {0, 1}
    np.testing.assert_array_equal(draw_masks(logits)["b"], [0, 1])
    slopes = jax.grad(lambda logits: draw_masks(logits, jax.random.key(0))["a"].sum())(logits)
    assert (slopes["a"] >= 0).all()
    assert slopes["a"].mean() > 0.1
    assert not slopes["b"].any()


def tied(params: Any, x: Any) -> Any:
    return x @ params["w"] @ params["w"]


def centered(params: Any, x: Any) -> Any:
    return x @ (params["w"] - params["w"].mean())


def fixed(params: Any, x: Any) -> Any:
    return x @ jnp.ones((4, 4)) + params["w"][0]


W, X = {"w": jnp.ones((4, 4))}, jnp.ones((2, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LayerWeights.find(tied, W, X), "fn must not use weights twice; w#2 has those of w"),
        (lambda: LayerWeights.find(centered, W, X), "params must hold the weights of w as one array"),
        (lambda: LayerWeights.find(fixed, W, X), "params must hold the weights of fixed:.* as one array"),
        (lambda: LayerWeights.find(lambda p, x: x * p["w"][0], W, X), "fn must run a convolution or dense product"),
        (
            lambda: LayerWeights.find(tied, W, X, leave_out=("v",)),
            r"leave_out must name layers of fn \(w, w#2\), got 'v'",
        ),
        (lambda: found().of({"conv": 1}), r"params must hold the weights of conv at \['conv'\], of the shape that"),
        (lambda: found().put(PARAMS, {"conv": np.ones(3)}), "weights must hold an array for each layer .*lacking: mix"),
        (lambda: found().masked(PARAMS, dict(SHAPES)), r"masks\['conv'\] must be of the shape"),
        (lambda: first_logits({}), "weights must be a mapping .* got an empty one"),
        (lambda: draw_masks(cast("Any", [1])), "logits must be a mapping from names of layers to arrays, got list"),
        (
            lambda: draw_masks({"a": jnp.ones(2)}, cast("Any", 3.5)),
            "key must be a random key from jax.random.key, got 3.5",
        ),
    ],
)
def test_bad_arguments(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
