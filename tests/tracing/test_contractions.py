"""Convolutions whose padding crops: what is left of their input."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_jax import Phantom2D, simulate, trace
from phantom_jax.tracing.contractions import NotALayerError, convolution
from tests import cases

NUMBERS = ("NHWC", "HWIO", "NHWC")


@st.composite
def cropped(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Draws sizes, padding and input dilation of two axes, of which the first may keep inserted zeros alone."""
    size, dilation = draw(st.integers(0, 3)), draw(st.integers(1, 4))
    length = max((size - 1) * dilation + 1, 0)
    low = draw(st.integers(-length - 2, 3))
    high = draw(st.integers(2 - length - low, 6 - length - low))  # 2 to 6 elements are left
    return [size, 4], [(low, high), draw(st.sampled_from([(0, 0), (-1, 2)]))], [dilation, draw(st.integers(1, 2))]


def convolve(activations: np.ndarray, weights: np.ndarray, padding: Any, dilation: Sequence[int]) -> np.ndarray:
    """Convolves what `lax.pad` makes of the input: XLA fails at some of these convolutions when it pads itself."""
    around = [(0, 0, 0), *((low, high, by - 1) for (low, high), by in zip(padding, dilation, strict=True)), (0, 0, 0)]
    padded = jax.lax.pad(jnp.asarray(activations, jnp.float32), jnp.float32(0), around)
    kernel = jnp.asarray(weights, jnp.float32)
    return np.asarray(jax.lax.conv_general_dilated(padded, kernel, (1, 1), "VALID", dimension_numbers=NUMBERS))


@settings(max_examples=20)
@given(cropped(), st.integers(0, 2**32 - 1))
def test_what_a_crop_leaves_is_what_is_convolved(
    drawn: tuple[list[int], list[tuple[int, int]], list[int]], seed: int
) -> None:
    sizes, padding, dilation = drawn
    rng = np.random.default_rng(seed)
    activations, weights = rng.random((2, *sizes, 2)) < 0.7, rng.random((2, 2, 2, 3)) < 0.7
    geometry = {"strides": (1, 1), "kernel_dilation": (1, 1), "feature_group_count": 1}
    layer = convolution(weights, activations, "up", padding=padding, input_dilation=dilation, **geometry)
    np.testing.assert_array_equal(
        convolve(layer.activations, layer.weights, layer.padding, layer.input_dilation),
        convolve(activations, weights, padding, dilation),
    )


@pytest.mark.parametrize(
    ("size", "padding", "dilation"),
    [
        (2, (-1, -1), 3),
        (2, (-5, 4), 3),
        (2, (4, -5), 3),
        (1, (-1, 5), 3),
        (2, (-2, 1), 3),
        (3, (-3, 4), 1),
        (0, (1, 3), 2),
    ],
)
def test_a_crop_is_that_of_jax(size: int, padding: tuple[int, int], dilation: int) -> None:
    rng = np.random.default_rng(0)
    activations, weights = rng.random((2, size, 4, 2)) < 0.7, rng.random((2, 2, 2, 3)) < 0.7
    geometry = {"kernel_dilation": (1, 1), "feature_group_count": 1, "input_dilation": (dilation, 1)}
    layer = convolution(weights, activations, "up", padding=[padding, (0, 0)], strides=(1, 1), **geometry)
    wanted = jax.lax.conv_general_dilated(
        jnp.asarray(activations, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        (1, 1),
        [padding, (0, 0)],
        lhs_dilation=(dilation, 1),
        dimension_numbers=NUMBERS,
    )
    np.testing.assert_array_equal(cases.convolve(layer, layer.weights, layer.activations), wanted)


def test_a_layer_that_reads_inserted_zeros_alone_is_a_layer_without_work() -> None:
    """Two zeros are inserted between two elements; a crop of one on each side leaves the zeros."""

    def up(kernel: jax.Array, images: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), [(-1, -1), (0, 0)], lhs_dilation=(3, 1), dimension_numbers=NUMBERS
        )

    (layer,) = traced = trace(up, jnp.ones((2, 1, 2, 4)), jnp.ones((1, 2, 5, 2)))
    assert not traced.skipped
    assert layer.output_shape == traced.outputs.shape[1:-1] == (1, 5)
    assert layer.weights.all()
    (report,) = simulate(layer, Phantom2D()).layers
    assert (report.dense_macs, report.effectual_macs.tolist()) == (5 * 2 * 2 * 4, [0])


def test_a_crop_that_leaves_nothing_makes_no_layer() -> None:
    with pytest.raises(NotALayerError, match="padding leaves nothing of spatial axis 1, of 2 elements"):
        convolution(
            np.ones((1, 1, 1, 1), bool),
            np.ones((1, 2, 2, 1), bool),
            "none",
            strides=(1, 1),
            padding=[(0, 0), (-3, 1)],
            input_dilation=(1, 1),
            kernel_dilation=(1, 1),
            feature_group_count=1,
        )
