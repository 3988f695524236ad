"""The networks: shapes of their layers, and a depthwise convolution that agrees with JAX's."""

import itertools

import jax
import numpy as np
import pytest
from flax import nnx
from jax import lax

from phantom_jax.training.networks import MODELS, vgg16
from phantom_jax.training.networks.depthwise import depthwise_conv
from phantom_jax.workloads import NETWORKS


def _kernels(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {str(path[0]): leaf.get_value().shape for path, leaf in state if path[-1] == "kernel"}


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v1"])
def test_full_networks_have_the_layers_of_their_workloads(name: str) -> None:
    model = nnx.eval_shape(lambda: MODELS[name]((224, 224, 3), 1000, nnx.Rngs(0)))
    assert _kernels(model) == {layer.name: layer.weights for layer in NETWORKS[name]().layers}


@pytest.mark.parametrize("name", ["vgg_small", "mobilenet_small"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_small_networks_give_logits_and_have_few_weights(name: str, shape: tuple[int, int, int]) -> None:
    model = nnx.eval_shape(lambda: MODELS[name](shape, 10, nnx.Rngs(0)))
    logits = nnx.eval_shape(lambda model, images: model(images), model, jax.ShapeDtypeStruct((2, *shape), np.float32))
    assert logits.shape == (2, 10)
    assert sum(np.prod(shape) for shape in _kernels(model).values()) < 80_000


def test_a_picture_too_small_to_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image_shape must have sides of 32 or more.*\(16, 224, 1\)"):
        vgg16((16, 224, 1), 10, nnx.Rngs(0))


CASES = list(itertools.product([(7, 7), (8, 5)], [(1, 1), (2, 2)], ["SAME", "VALID", [(0, 2), (1, 0)]]))
FAST = (((7, 7), (1, 1), "SAME"), ((8, 5), (2, 2), "VALID"), ((8, 5), (1, 1), [(0, 2), (1, 0)]))


@pytest.mark.parametrize(
    ("size", "strides", "padding"),
    [case if case in FAST else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_depthwise_convolution_and_its_gradients_are_those_of_jax(
    size: tuple[int, int], strides: tuple[int, int], padding: str | list[tuple[int, int]]
) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    images, kernel = jax.random.normal(keys[0], (2, *size, 6)), jax.random.normal(keys[1], (3, 3, 1, 6))

    def reference(images: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            images, kernel, strides, padding, dimension_numbers=numbers, feature_group_count=6
        )

    outputs, pull_back = jax.vjp(lambda x, w: depthwise_conv(x, w, strides, padding), images, kernel)
    expected, expected_pull_back = jax.vjp(reference, images, kernel)
    np.testing.assert_array_equal(depthwise_conv(images, kernel, strides, padding), expected)  # not differentiated
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    cotangent = jax.random.normal(keys[2], expected.shape)
    for got, wanted in zip(pull_back(cotangent), expected_pull_back(cotangent), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)
