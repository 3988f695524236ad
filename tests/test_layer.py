"""A layer's geometry and the checks at its boundary."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from phantom_jax import Layer
from tests import cases

WEIGHTS = np.ones((3, 3, 2, 4), bool)
ACTIVATIONS = np.ones((1, 5, 6, 2), bool)


@given(cases.layers())
def test_output_shape_is_that_of_jax(drawn: tuple[Layer, Any]) -> None:
    layer, padding = drawn
    if not layer.is_conv:
        return
    expected = jax.eval_shape(
        lambda a, w: jax.lax.conv_general_dilated(
            a,
            w,
            layer.strides,
            padding,
            lhs_dilation=layer.input_dilation,
            rhs_dilation=layer.kernel_dilation,
            dimension_numbers=cases.dimension_numbers(layer),
            feature_group_count=layer.feature_group_count,
        ),
        jax.ShapeDtypeStruct(layer.activations.shape, jnp.float32),
        jax.ShapeDtypeStruct(layer.weights.shape, jnp.float32),
    )
    assert (layer.batch, *layer.output_shape, layer.filters) == expected.shape


def test_is_a_pytree_of_its_two_masks() -> None:
    layer = Layer.conv(WEIGHTS, ACTIVATIONS, strides=2, name="conv")
    leaves, structure = jax.tree.flatten(layer)
    assert [leaf.shape for leaf in leaves] == [WEIGHTS.shape, ACTIVATIONS.shape]
    again = jax.tree.unflatten(structure, leaves)
    assert (again.name, again.strides, again.padding) == ("conv", (2, 2), ((1, 1), (0, 1)))


def test_is_made_of_traced_arrays_under_jit() -> None:
    positions = jax.jit(lambda w, a: jnp.zeros(Layer.conv(w, a).positions))(WEIGHTS * 0.5, ACTIVATIONS * 0.5)
    assert positions.shape == (30,)


@pytest.mark.parametrize("padding", [1, (1, 1), ((1, 1), (1, 1)), [[1, 1], [1, 1]], np.ones((2, 2), int), "SAME"])
def test_ways_to_write_the_same_padding(padding: Any) -> None:
    assert Layer.conv(WEIGHTS, ACTIVATIONS, padding=padding).padding == ((1, 1), (1, 1))


def test_takes_lists_scalars_of_numpy_and_bfloat16() -> None:
    assert Layer.dense([[1, 0], [0, 1]], [[1, 0]]).filters == 2
    stride: Any = np.int64(2)
    assert Layer.conv(WEIGHTS, ACTIVATIONS, strides=stride).strides == (2, 2)
    assert Layer.dense(jnp.ones((3, 2), jnp.bfloat16), jnp.ones((1, 3), jnp.bfloat16)).reduction == 3


@pytest.mark.parametrize(
    ("weights", "activations", "arguments", "message"),
    [
        (WEIGHTS[0, 0], ACTIVATIONS, {}, "weights of a convolution must have 3, 4 or 5 axes .* got shape \\(2, 4\\)"),
        (np.ones((1,) * 6), ACTIVATIONS, {}, "weights of a convolution must have 3, 4 or 5 axes"),
        (WEIGHTS, ACTIVATIONS[0], {}, "activations must have 4 axes .* got shape \\(5, 6, 2\\)"),
        (WEIGHTS, ACTIVATIONS[..., :1], {}, "activations have 1 channels, but weights .* expect 2 \\* 1 = 2"),
        (WEIGHTS, ACTIVATIONS, {"feature_group_count": 2}, "activations have 2 channels, but .* expect 2 \\* 2 = 4"),
        (WEIGHTS[..., :1, :3], ACTIVATIONS, {"feature_group_count": 2}, "feature_group_count 2 does not divide the 3"),
        (WEIGHTS, ACTIVATIONS, {"feature_group_count": 0}, "feature_group_count must be a positive integer, got 0"),
        (WEIGHTS, ACTIVATIONS, {"feature_group_count": True}, "feature_group_count must be a positive integer"),
        (np.ones((6, 1, 2, 4)), ACTIVATIONS, {"padding": "VALID"}, "spans 6 elements on spatial axis 0 .* only has 5"),
        (WEIGHTS, ACTIVATIONS, {"padding": 0, "kernel_dilation": (1, 3)}, "spans 7 elements on spatial axis 1"),
        (WEIGHTS[:0], ACTIVATIONS, {}, "weights must not have an empty axis, got shape \\(0, 3, 2, 4\\)"),
        (WEIGHTS, ACTIVATIONS[:0], {}, "activations must not have an empty axis, got shape \\(0, 5, 6, 2\\)"),
        (WEIGHTS[..., :0], ACTIVATIONS, {}, "weights must not have an empty axis"),
        (WEIGHTS, ACTIVATIONS, {"padding": -1}, "padding must be a non-negative integer, got -1"),
        (WEIGHTS, ACTIVATIONS, {"padding": ((0, 0), (1, -1))}, "padding\\[1\\] must be a non-negative integer, got -1"),
        (WEIGHTS, ACTIVATIONS, {"padding": ((0, 0),)}, "padding must be an int or one entry for each of the 2"),
        (WEIGHTS, ACTIVATIONS, {"padding": ((0, 0, 0), 1)}, "padding\\[0\\] must be an int or a \\(low, high\\) pair"),
        (WEIGHTS, ACTIVATIONS, {"padding": 0.5}, "padding must be a non-negative integer, got 0.5"),
        (WEIGHTS, ACTIVATIONS, {"padding": "CIRCULAR"}, "padding must be 'SAME', 'VALID', .* got 'CIRCULAR'"),
        (WEIGHTS, ACTIVATIONS, {"input_dilation": 2}, "padding must be an int or pairs .* got 'SAME' with input_dil"),
        (WEIGHTS, ACTIVATIONS, {"input_dilation": 2, "padding": "VALID"}, "padding must be .* got 'VALID'"),
        (WEIGHTS, ACTIVATIONS, {"strides": 0}, "strides must be a positive integer, got 0"),
        (WEIGHTS, ACTIVATIONS, {"strides": 1.0}, "strides must be a positive integer, got 1.0"),
        (WEIGHTS, ACTIVATIONS, {"strides": (1, 2, 3)}, "strides must be an int or one entry for each of the 2"),
        (WEIGHTS, ACTIVATIONS, {"strides": "2"}, "strides must be an int or one entry for each of the 2"),
        (WEIGHTS, ACTIVATIONS, {"kernel_dilation": (1, 0)}, "kernel_dilation\\[1\\] must be a positive integer, got 0"),
        (WEIGHTS, ACTIVATIONS, {"input_dilation": (1, False)}, "input_dilation\\[1\\] must be a positive integer"),
        (WEIGHTS * np.nan, ACTIVATIONS, {}, "weights must not hold NaN, got 72 of them"),
        (WEIGHTS, np.where(np.arange(2) > 0, np.float16(np.nan), 1) * ACTIVATIONS, {}, "activations must not hold NaN"),
        (jnp.full(WEIGHTS.shape, jnp.nan, jnp.bfloat16), ACTIVATIONS, {}, "weights must not hold NaN"),
        (WEIGHTS.astype(object), ACTIVATIONS, {}, "weights must be a boolean or numeric array, got dtype object"),
        (WEIGHTS, ACTIVATIONS.astype(str), {}, "activations must be a boolean or numeric array, got dtype <U"),
        (np.full(WEIGHTS.shape, np.timedelta64("NaT")), ACTIVATIONS, {}, "weights must be .* got dtype timedelta64"),
        (WEIGHTS, ACTIVATIONS, {"padding": 10**15}, "padding must be at most 2147483647, got 1000000000000000"),
        (WEIGHTS, ACTIVATIONS, {"strides": {1, 2}}, "strides must be a positive integer, got {1, 2}"),
        (WEIGHTS, ACTIVATIONS, {"padding": ({1, 2}, 1)}, "padding\\[0\\] must be a non-negative integer, got {1, 2}"),
        (None, ACTIVATIONS, {}, "weights must be a boolean or numeric array, got dtype object"),
        ([[1, 2], [3]], ACTIVATIONS, {}, "weights must be a boolean or numeric array, got a ragged"),
        (WEIGHTS, ACTIVATIONS, {"name": 3}, "name must be a string, got 3"),
    ],
)
def test_bad_convolutions(weights: Any, activations: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layer.conv(weights, activations, **arguments)


@pytest.mark.parametrize(
    ("weights", "activations", "message"),
    [
        (np.ones(3), np.ones((1, 3)), "weights of a dense layer must have 2 axes \\[Cin, K\\], got shape \\(3,\\)"),
        (np.ones((3, 2)), np.ones(3), "activations of a dense layer must be .* got shape \\(3,\\)"),
        (np.ones((3, 2)), np.ones((1, 1, 1, 3)), "activations of a dense layer must be"),
        (np.ones((3, 2)), np.ones((1, 4)), "activations have 4 channels, but weights .* expect 3"),
        (np.ones((3, 0)), np.ones((1, 3)), "weights must not have an empty axis"),
        (np.ones((3, 2)), np.ones((1, 0, 3)), "activations must not have an empty axis"),
        (np.ones((3, 2)), np.full((1, 3), np.nan), "activations must not hold NaN, got 3 of them"),
    ],
)
def test_bad_dense_layers(weights: Any, activations: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layer.dense(weights, activations)
