"""Tracing: what a function contracts, in whatever layout and inside of whatever, becomes the layers that it is."""

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.experimental import sparse

from phantom_jax import Layer, Phantom2D, Skipped, Traced, simulate, trace
from tests import cases

RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.standard_normal((6, 6)) * (RNG.random((6, 6)) < 0.5), jnp.float32)
INPUTS = jnp.asarray(RNG.standard_normal((4, 6)) * (RNG.random((4, 6)) < 0.5), jnp.float32)
KERNEL = jnp.asarray(RNG.standard_normal((3, 3, 2, 2)) * (RNG.random((3, 3, 2, 2)) < 0.5), jnp.float32)
IMAGES = jnp.asarray(RNG.standard_normal((4, 7, 5, 2)) * (RNG.random((4, 7, 5, 2)) < 0.5), jnp.float32)


def conv(images: Any, kernel: Any, **options: Any) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers, **options)


def quietly(fn: Callable[..., Any], *args: Any) -> Traced:
    """Traces without the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return trace(fn, *args)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Draws operands of zeros and ones in any layout, and the arguments of `conv_general_dilated`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rank = draw(st.integers(1, 3))
    groups, per_group, multiplier = (draw(st.integers(1, 3)) for _ in range(3))
    dilation, input_dilation, strides = (tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (2, 3, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    spatial = [draw(st.integers(3, 6)) for _ in range(rank)]
    padding = []
    for size, extent, by, kernel_by in zip(spatial, kernel, input_dilation, dilation, strict=True):
        spare = (size - 1) * by + 1 - (extent - 1) * kernel_by - 1  # what may be cropped
        low = draw(st.integers(-max(min(spare, 3), 0), 3))
        high = draw(st.integers(max(-spare - min(low, 0), -3), 3))
        padding.append((low, high))
    specs = [tuple(draw(st.permutations(range(rank + 2)))) for _ in range(3)]
    left, right = np.empty(rank + 2, int), np.empty(rank + 2, int)
    left[list(specs[0])] = (draw(st.integers(1, 2)), groups * per_group, *spatial)
    right[list(specs[1])] = (groups * multiplier, per_group, *kernel)
    options = {
        "window_strides": strides,
        "padding": padding,
        "lhs_dilation": input_dilation,
        "rhs_dilation": dilation,
        "dimension_numbers": lax.ConvDimensionNumbers(*specs),
        "feature_group_count": groups,
    }
    return rng.random(left) < 0.6, rng.random(right) < 0.6, options


@given(convolutions())
def test_a_convolution_of_any_layout_is_the_layer_that_it_was(drawn: tuple[Any, Any, dict[str, Any]]) -> None:
    images, kernel, options = drawn
    (layer,) = traced = trace(
        functools.partial(lax.conv_general_dilated, **options), images.astype(np.float32), kernel.astype(np.float32)
    )
    batch, channels, *spatial = options["dimension_numbers"].out_spec
    np.testing.assert_array_equal(
        cases.convolve(layer, layer.weights, layer.activations),
        np.transpose(traced.outputs, (batch, *spatial, channels)),
    )
    assert layer.weights.dtype == layer.activations.dtype == bool
    assert layer.weights.sum() == kernel.sum()
    assert all(low >= 0 and high >= 0 for low, high in layer.padding)


@st.composite
def products(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """Draws operands of zeros and ones, and the axes of each that are contracted, in matching order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 4), max_size=3))
    operands, contracting = [], []
    for _ in range(2):
        free = draw(st.lists(st.integers(1, 4), max_size=3))
        order = draw(st.permutations(range(len(sizes) + len(free))))
        operands.append(rng.random([[*sizes, *free][axis] for axis in order]) < 0.6)
        contracting.append(tuple(order.index(axis) for axis in range(len(sizes))))
    return operands[0], operands[1], contracting


@given(products())
def test_a_product_of_any_axes_is_the_layer_that_it_was(drawn: tuple[Any, Any, Any]) -> None:
    left, right, contracting = drawn
    if not left.ndim:  # a scalar is not an activation
        return
    product = functools.partial(lax.dot_general, dimension_numbers=(contracting, ((), ())))
    (layer,) = traced = trace(product, left * 2.0, right * 1.0, weight_argnums=1)
    counts = layer.activations.astype(int) @ layer.weights.astype(int)
    if not contracting[0] or 0 not in contracting[0]:
        assert layer.batch == left.shape[0]
    np.testing.assert_array_equal(counts.ravel() * 2, np.ravel(traced.outputs))
    swapped = functools.partial(lax.dot_general, dimension_numbers=(contracting[::-1], ((), ())))
    (other,) = trace(lambda x: swapped(right * 1.0, x), left * 2.0)  # the weights on the left
    np.testing.assert_array_equal(other.activations, layer.activations)
    np.testing.assert_array_equal(other.weights, layer.weights)
    free = [size for axis, size in enumerate(left.shape) if axis not in contracting[0]]
    assert layer.batch == (free[0] if free else 1)
    assert layer.activations.ndim == (3 if len(free) > 1 else 2)


# Functions of INPUTS, each with the layers that it runs.
relu_product = jax.custom_jvp(lambda x: jnp.maximum(x @ WEIGHTS, 0))
relu_product.defjvp(lambda primals, tangents: (relu_product(*primals), tangents[0]))
straight_through = jax.custom_vjp(lambda x: x @ WEIGHTS)
straight_through.defvjp(lambda x: (x @ WEIGHTS, None), lambda _, cotangent: (cotangent,))


def normalized(x: Any) -> jax.Array:
    """Holds jits of more than one operation, which round differently once compiled."""
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1e-5)
    return jax.nn.gelu(jax.nn.silu(x) @ WEIGHTS)


def scanned(x: Any) -> Any:
    return lax.scan(lambda carry, row: (jnp.tanh(carry @ WEIGHTS) * 0.9 + row, carry.sum()), x, jnp.linspace(0, 1, 3))


NESTED = jax.jit(jax.vmap(jax.checkpoint(lambda x: lax.scan(lambda c, _: (relu_product(c), None), x, None, 2)[0])))
FUNCTIONS = {
    "plain": (lambda x: x @ WEIGHTS, 1),
    "jit": (jax.jit(lambda x: jax.jit(lambda y: y @ WEIGHTS)(x) @ WEIGHTS), 2),
    "remat": (jax.checkpoint(lambda x: jnp.sin(x @ WEIGHTS)), 1),
    "custom_jvp": (relu_product, 1),
    "custom_vjp": (straight_through, 1),
    "vmap": (jax.vmap(lambda x: x @ WEIGHTS), 1),
    "scan": (scanned, 3),
    "reverse scan": (lambda x: lax.scan(lambda c, r: (c @ WEIGHTS + r, r * 2), x, jnp.arange(3.0), reverse=True), 3),
    "fori_loop": (lambda x: lax.fori_loop(0, 2, lambda i, y: y @ WEIGHTS + i, x), 2),
    "map": (lambda x: lax.map(lambda row: row @ WEIGHTS, x), 4),
    "cond": (lambda x: lax.cond(x.sum() > 1e9, lambda y: y @ WEIGHTS @ WEIGHTS, lambda y: y @ WEIGHTS, x), 1),
    "switch beyond the last": (lambda x: lax.switch(7, [lambda y: y, lambda y: y @ WEIGHTS], x), 1),
    "nested": (NESTED, 2),
    "gradient": (jax.grad(lambda x: (jnp.tanh(x @ WEIGHTS) ** 2).sum()), 2),
    "normalized": (normalized, 1),
    "no contraction": (lambda x: {"sum": x.sum(), "rest": [None, (x * 2, 1)]}, 0),
    "constants": (lambda x: (x, 3, jnp.ones(2).sum()), 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_outputs_are_those_of_the_function(name: str) -> None:
    fn, layers = FUNCTIONS[name]
    traced = quietly(fn, INPUTS)
    with jax.disable_jit():
        eager = fn(INPUTS)
    assert jax.tree.structure(traced.outputs) == jax.tree.structure(eager)
    jax.tree.map(np.testing.assert_array_equal, traced.outputs, eager)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), traced.outputs, jax.jit(fn)(INPUTS)
    )
    assert len(traced) == layers
    assert not traced.skipped


def test_a_scan_of_no_step_runs_nothing() -> None:
    traced = trace(lambda x: lax.scan(lambda c, _: (c @ WEIGHTS, c.sum()), x, None, 0), INPUTS)
    np.testing.assert_array_equal(traced.outputs[0], INPUTS)
    assert traced.outputs[1].shape == (0,)
    assert len(traced) == 0


def test_masks_are_those_of_the_values_at_that_moment() -> None:
    traced = trace(lambda x: jax.nn.relu(x @ WEIGHTS) @ WEIGHTS.T, INPUTS)
    hidden = np.maximum(np.asarray(INPUTS @ WEIGHTS), 0)
    np.testing.assert_array_equal(traced[0].activations, INPUTS != 0)
    np.testing.assert_array_equal(traced[1].activations, hidden != 0)
    np.testing.assert_array_equal(traced[1].weights, (WEIGHTS != 0).T)


def test_steps_of_a_scan_read_what_they_carry() -> None:
    shift = jnp.eye(3)[jnp.array([1, 2, 0])]
    traced = trace(lambda x: lax.scan(lambda c, _: (c @ shift, c), x, None, 3)[1], jnp.array([[1.0, 0, 0]]))
    assert [layer.activations.argmax() for layer in traced] == [0, 1, 2]


def test_vmap_over_images_gives_their_batch() -> None:
    def network(image: Any) -> jax.Array:
        hidden = jax.nn.relu(conv(image[None], KERNEL)[0])
        tokens = hidden.reshape(7, 10) @ jnp.ones((10, 3))
        return tokens.ravel() @ jnp.ones((21, 4))

    one_by_one = [trace(network, image) for image in IMAGES]
    together = trace(jax.vmap(network), IMAGES)
    for index, layer in enumerate(together):
        alone = np.concatenate([traced[index].activations for traced in one_by_one])
        assert layer.batch == len(IMAGES)
        np.testing.assert_array_equal(layer.activations, alone.reshape(layer.activations.shape))
        np.testing.assert_array_equal(layer.weights, one_by_one[0][index].weights)


def test_vmap_over_batches_gives_all_of_their_images() -> None:
    (layer,) = trace(jax.vmap(functools.partial(conv, kernel=KERNEL)), IMAGES.reshape(2, 2, 7, 5, 2))
    np.testing.assert_array_equal(layer.activations, IMAGES != 0)


def test_vmap_over_the_kernels_of_images_gives_groups() -> None:
    def one(image: Any, kernel: Any) -> jax.Array:
        return conv(image[None], kernel)[0]

    images, kernels = 1.0 * (IMAGES != 0), jnp.stack([KERNEL, KERNEL * 0, KERNEL[::-1], KERNEL])
    (layer,) = traced = trace(jax.vmap(one), images, 1.0 * (kernels != 0))
    assert (layer.batch, layer.feature_group_count, layer.filters) == (1, 4, 8)
    counts = cases.convolve(layer, layer.weights, layer.activations).reshape(7, 5, 4, 2)
    np.testing.assert_array_equal(counts.transpose(2, 0, 1, 3), traced.outputs)


def weights_first(w: Any, x: Any) -> Any:
    return w @ x


@dataclasses.dataclass
class Affine:
    """A module of arrays, with an activation function that is not an array, and weights on the left."""

    weight: Any
    activation: Callable[..., Any]

    def __call__(self, x: Any) -> Any:
        return self.activation(self.weight @ x)


jax.tree_util.register_dataclass(Affine, ["weight", "activation"], [])
AFFINE = Affine(WEIGHTS[:5], jnp.tanh)


@pytest.mark.parametrize(
    ("fn", "args", "options"),
    [
        (lambda x: WEIGHTS[:5] @ x, (INPUTS.T,), {"batch": 1}),
        (lambda x: WEIGHTS[:5] @ x, (INPUTS.T,), {}),
        (jax.vmap(AFFINE), (INPUTS,), {}),
        (jax.vmap(lambda x: jnp.dot(WEIGHTS[:5], x)), (INPUTS,), {}),
        (lambda module, x: jax.vmap(module)(x), (AFFINE, INPUTS), {}),
        (weights_first, (WEIGHTS[:5], INPUTS.T), {"weight_argnums": 0}),
        (lambda x, w: x @ w.T, (INPUTS, WEIGHTS[:5]), {"weight_argnums": (1,)}),
        (lambda params, x: x @ params["w"].T, ({"w": WEIGHTS[:5]}, INPUTS), {}),
        (lambda params, x: x["images"] @ params.T, (WEIGHTS[:5], {"images": INPUTS}), {"weight_argnums": 0}),
        (lambda x: x @ (WEIGHTS[:5] * (jnp.arange(6) < 9)).T, (INPUTS,), {}),
        (lambda x, step: x @ jnp.where(step > 0, WEIGHTS[:5], 0).T, (INPUTS, 3), {}),
    ],
)
def test_weights_are_what_derives_from_parameters_on_either_side(fn: Any, args: Any, options: Any) -> None:
    (layer,) = trace(fn, *args, **options)
    np.testing.assert_array_equal(layer.activations, INPUTS != 0)
    np.testing.assert_array_equal(layer.weights, (WEIGHTS[:5] != 0).T)


def test_a_module_by_itself_has_weights_on_the_left() -> None:
    (layer,) = traced = trace(AFFINE, INPUTS[0])
    np.testing.assert_array_equal(layer.activations, INPUTS[:1] != 0)
    assert jax.tree_util.keystr(traced.sources[0] or ()) == "[0].weight"


SPARSE = sparse.BCOO.fromdense(jnp.diag(jnp.array([1.0, 2, 0, 0])))
ROWS = jnp.asarray(RNG.random((3, 4)) < 0.5, jnp.float32)


@pytest.mark.parametrize("kind", [sparse.BCOO, sparse.BCSR, sparse.COO, sparse.CSR, sparse.CSC])
def test_sparse_weights_make_the_layer_of_dense_ones(kind: Any) -> None:
    dense = jnp.triu(jnp.ones((5, 4)))
    matrix = kind.fromdense(dense)
    mapped = [jax.vmap(lambda x: matrix @ x)] if kind in (sparse.BCOO, sparse.BCSR) else []  # JAX maps no others
    for fn in (lambda x: matrix @ x.T, *mapped):
        outputs = fn(ROWS)
        (layer,) = traced = trace(fn, ROWS)
        np.testing.assert_array_equal(layer.weights, dense.T != 0)
        np.testing.assert_array_equal(layer.activations, ROWS != 0)
        np.testing.assert_allclose(traced.outputs, outputs)


def test_sparse_weights_on_the_right_and_as_an_argument() -> None:
    for traced in (trace(lambda x: x @ SPARSE, ROWS), trace(lambda w, x: x @ w, SPARSE, ROWS)):
        assert [(layer.weights.shape, layer.weights.mean()) for layer in traced] == [((4, 4), 2 / 16)]
        np.testing.assert_array_equal(traced[0].activations, ROWS != 0)


def test_sparse_activations_are_activations() -> None:
    rows = sparse.BCOO.fromdense(ROWS)
    (layer,) = trace(lambda values: sparse.BCOO((values, rows.indices), shape=rows.shape) @ WEIGHTS[:4], rows.data)
    np.testing.assert_array_equal(layer.activations, ROWS != 0)
    np.testing.assert_array_equal(layer.weights, WEIGHTS[:4] != 0)


def resized(x: Any, method: str = "linear") -> jax.Array:
    return jax.image.resize(x, (len(x), 16, 16, x.shape[-1]), method)


@pytest.mark.parametrize("method", ["linear", "cubic", "lanczos3"])
def test_resizing_makes_no_layer(method: str) -> None:
    images = (np.random.default_rng(0).random((16, 8, 8, 4)) < 0.5).astype(np.float32)
    kernel = np.ones((3, 3, 4, 4), np.float32)
    traced = quietly(lambda x: conv(resized(x, method), kernel), images)
    assert len(traced) == 1
    assert [skipped.reason for skipped in traced.skipped] == [
        "its other operand is made of indices alone, as in resizing; it has no weights"
    ] * 2
    assert simulate(traced, Phantom2D()).cycles[0] == (
        146
        if method == "linear"
        else simulate(Layer.conv(kernel, np.asarray(resized(images, method))), Phantom2D()).cycles[0]
    )


def spectral(x: Any) -> Any:
    """Spectral normalization in evaluation: the weights over their largest singular value, by power iteration."""
    u = jnp.ones(6)
    v = WEIGHTS.T @ u
    return x @ (WEIGHTS / (u @ WEIGHTS @ v))


ACTIVE = "both operands derive from activations; weight_argnums says which arguments hold weights"
FIXED = "both operands derive from parameters or constants; it has no activations"
INDEXED = "its other operand is made of indices alone, as in resizing; it has no weights"


@pytest.mark.parametrize(
    ("fn", "args", "layers", "reasons"),
    [
        (lambda x: (x @ WEIGHTS) @ (x @ WEIGHTS).T, (INPUTS,), 2, [ACTIVE]),
        (lambda q, k: q @ k.T, (INPUTS, INPUTS), 0, [ACTIVE]),
        (lambda x: x.T @ x, (INPUTS,), 0, [ACTIVE]),
        (lambda x: jnp.vdot(x, x), (INPUTS,), 0, [ACTIVE]),
        (lambda x: x[:, :2] @ WEIGHTS[x[0, :2].astype(int)], (INPUTS,), 0, [ACTIVE]),
        (spectral, (INPUTS,), 1, [FIXED] * 3),
        (lambda x: lax.conv_general_dilated_patches(x, (3, 3), (1, 1), "SAME"), (IMAGES,), 0, [INDEXED]),
        (lambda x: x @ jnp.eye(6), (INPUTS,), 0, [INDEXED]),
        (lambda x: x @ jnp.ones((6, 2)), (INPUTS,), 1, []),
        (lambda x: x @ jnp.array([[1.0, 0]] * 6), (INPUTS,), 1, []),
        (lambda x: jax.nn.one_hot(jnp.arange(6), 6) @ WEIGHTS + x[0], (INPUTS,), 0, [FIXED]),
        (lambda x: jnp.fft.ifft(jnp.fft.fft(x) * 2).real, (INPUTS,), 0, ["it contracts without weights"] * 2),
        (lambda x: jax.scipy.linalg.solve_triangular(WEIGHTS, x.T), (INPUTS,), 0, ["it factors or solves"]),
        (lambda x: jnp.linalg.cholesky(x[:2, :2]), (INPUTS,), 0, ["it factors or solves"]),
    ],
)  # fmt: skip
def test_products_without_weights_make_no_layer(fn: Any, args: Any, layers: int, reasons: list[str]) -> None:
    traced = quietly(fn, *args)
    assert len(traced) == layers
    assert [skipped.reason[: len(reason)] for skipped, reason in zip(traced.skipped, reasons, strict=True)] == reasons


def time_first(x: Any) -> Any:
    """A head over rows: [B, rows, columns, channels] to [rows, B, columns * channels]."""
    features = conv(x, jnp.ones((3, 3, x.shape[-1], 4)))
    rows = features.transpose(1, 0, 2, 3)
    return rows.reshape(*rows.shape[:2], -1) @ jnp.ones((features.shape[2] * 4, 5))


@pytest.mark.parametrize("count", [1, 3, 7])
def test_images_are_followed_where_time_comes_first(count: int) -> None:
    images = jnp.asarray(RNG.random((count, 7, 5, 2)) < 0.3, jnp.float32)
    _, head = trace(time_first, images)
    assert head.activations.shape == (count, 7, 20)
    alone = [trace(time_first, images[index : index + 1])[1].activations[0] for index in range(count)]
    np.testing.assert_array_equal(head.activations, np.stack(alone))
    cycles = simulate(trace(time_first, images), Phantom2D()).cycles
    assert cycles.shape == (count,)


def windows(x: Any) -> Any:
    """Window attention's tokens: [B, 2 * 2, 2 * 3, C] to [B * windows, tokens, C]."""
    parts = x.reshape(-1, 2, 2, 2, 3, 2).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(-1, 6, 2) @ jnp.ones((2, 3))


@pytest.mark.parametrize(
    "fn",
    [
        windows,
        lambda x: x.reshape(-1, 2) @ jnp.ones((2, 3)),
        lambda x: x.transpose(1, 2, 0, 3).reshape(-1, 2) @ jnp.ones((2, 3)),
        lambda x: lax.map(lambda row: row @ jnp.ones((2, 3)), x.transpose(1, 0, 2, 3)),
        lambda x: lax.scan(lambda c, row: (c, row * 2), 0.0, x.swapaxes(0, 1))[1].reshape(-1, 2) @ jnp.ones((2, 3)),
        lambda x: jnp.squeeze(x[:, None].transpose(2, 0, 1, 3, 4), 2) @ jnp.ones((2, 3)),
        lambda x: jnp.ones((3, 2)) @ jnp.moveaxis(x, 0, -1).reshape(4, 6, 2, -1),
        lambda x: jnp.concatenate([x, x * 0], 1).transpose(1, 0, 2, 3)[:4] @ jnp.ones((2, 3)),
    ],
)  # fmt: skip
def test_images_are_followed_through_reshapes_and_transposes(fn: Any) -> None:
    images = jnp.asarray(RNG.random((3, 4, 6, 2)) < 0.5, jnp.float32)
    together = trace(fn, images)
    for index in range(3):
        for layer, alone in zip(together, trace(fn, images[index : index + 1]), strict=True):
            np.testing.assert_array_equal(layer.activations[index], alone.activations[0])


def test_what_all_images_give_does_not_lose_them() -> None:
    images = jnp.asarray(RNG.random((3, 4, 6, 2)) < 0.5, jnp.float32)
    (layer,) = trace(lambda x: (x.transpose(1, 0, 2, 3) - x.mean(0)[:, None]) @ jnp.ones((2, 3)), images)
    assert layer.activations.shape == (3, 24, 2)


def test_frames_of_a_video_share_their_images_batch_if_it_is_given() -> None:
    clips = jnp.asarray(RNG.random((2, 3, 7, 5, 2)) < 0.5, jnp.float32)

    def network(x: Any) -> Any:
        frames = conv(x.reshape(-1, 7, 5, 2), KERNEL)
        return frames.reshape(2, 3, 70).sum(1) @ jnp.ones((70, 4))

    first, head = trace(network, clips, batch=0)
    assert (first.activations.shape, head.activations.shape) == ((2, 3, 7, 5, 2), (2, 70))
    frames, _ = quietly(network, clips)
    assert frames.batch == 6
    together = simulate(first, Phantom2D()).layers[0].effectual_macs
    np.testing.assert_array_equal(together, simulate(frames, Phantom2D()).layers[0].effectual_macs.reshape(2, 3).sum(1))
    swapped = trace(lambda x: network(x.swapaxes(0, 1)), clips.swapaxes(0, 1), batch=1)
    np.testing.assert_array_equal(swapped[0].activations, first.activations)


def test_where_images_are_can_be_said() -> None:
    steps = jnp.asarray(RNG.random((5, 3, 6)) < 0.5, jnp.float32)

    def head(x: Any) -> Any:
        with jax.named_scope("head"):
            return x @ WEIGHTS

    assert trace(head, steps)[0].activations.shape == (5, 3, 6)
    for batch in (1, {"args[0]": 1}, {"head": 1}):
        (layer,) = trace(head, steps, batch=batch)
        np.testing.assert_array_equal(layer.activations, np.swapaxes(steps, 0, 1) != 0)


def test_a_lost_trail_of_images_is_reported() -> None:
    def lost(x: Any) -> Any:
        parts = x.reshape(2, 2, 6)[::-1].reshape(4, 6)  # the batch as two axes, one of which turns
        return parts.reshape(2, 2, 6) @ WEIGHTS

    with pytest.warns(UserWarning, match="images are taken along the first axis of what lost:.* read"):
        (layer,) = trace(lost, INPUTS)
    assert layer.activations.shape == (2, 2, 6)


@pytest.mark.parametrize(
    ("fn", "args", "shapes", "reason"),
    [
        (lambda q, k: jnp.einsum("bqc,bkc->bqk", q, k), (jnp.ones((2, 3, 4)), jnp.ones((2, 5, 4))), 2, "batch axes"),
        (jax.vmap(jnp.matmul), (INPUTS, jnp.ones((4, 6, 2))), 2, "batch axes, as in attention"),
        (
            lambda x: lax.while_loop(lambda c: c[1] < 2, lambda c: (c[0] @ WEIGHTS, c[1] + 1), (x, 0))[0],
            (INPUTS,),
            2,
            "it is inside a while, which is run as a whole",
        ),
        (
            functools.partial(lax.conv_general_dilated, window_strides=(1,), padding="SAME", batch_group_count=2),
            (jnp.ones((4, 3, 8)), jnp.ones((2, 3, 3))),
            2,
            "batch_group_count is 2",
        ),
        (lambda x: x @ jnp.ones((3, 2)), (jnp.ones((0, 3)),), 2, "activations must not have an empty axis"),
        (lambda x: x @ jnp.ones((0, 2)), (jnp.ones((2, 0)),), 2, "weights must not have an empty axis"),
        (
            functools.partial(lax.conv_general_dilated, window_strides=(1,) * 4, padding="SAME"),
            (jnp.ones((1, 1, 2, 2, 2, 2)), jnp.ones((1,) * 6)),
            2,
            "must have 3, 4 or 5 axes",
        ),
        (
            lax.ragged_dot,
            (INPUTS, jnp.ones((2, 6, 3)), jnp.array([1, 3], jnp.int32)),
            3,
            "its weights differ by rows",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_layer_is_reported(fn: Callable[..., Any], args: Any, shapes: int, reason: str) -> None:
    with pytest.warns(UserWarning, match="what makes no layer is left out:") as warned:
        traced = trace(fn, *args)
    assert warned[0].filename == __file__
    (skipped,) = traced.skipped
    assert len(traced) == 0
    assert isinstance(skipped, Skipped)
    assert len(skipped.shapes) == shapes
    assert re.search(reason, skipped.reason)
    assert str(skipped) in str(warned[0].message)
    assert skipped.name in str(skipped)
    np.testing.assert_allclose(traced.outputs, fn(*args), rtol=1e-5)


def test_all_that_another_primitive_holds_is_reported() -> None:
    def solve(b: Any) -> jax.Array:
        return lax.custom_linear_solve(jax.jit(lambda x: WEIGHTS @ x), b, lambda _, y: y, lambda _, y: y)

    skipped = quietly(solve, INPUTS[0]).skipped
    assert len(skipped) == 2  # the product, and its transpose
    assert all(one.reason == "it is inside a custom_linear_solve, which is run as a whole" for one in skipped)


def test_a_warning_of_much_is_short() -> None:
    def many(x: Any) -> jax.Array:
        return lax.scan(lambda c, _: (jnp.einsum("bi,bij->bj", c, jnp.ones((4, 6, 6))), None), x, None, 20)[0]

    with pytest.warns(UserWarning, match="and 12 more, see .skipped") as warned:
        traced = trace(many, INPUTS)
    assert len(str(warned[0].message).splitlines()) == 10
    assert [skipped.name for skipped in traced.skipped][-1].endswith("[19]")


def test_layers_beside_what_is_skipped_are_kept() -> None:
    def attention(x: Any) -> jax.Array:
        q, k, v = (conv(x, KERNEL).reshape(4, 35, 2) for _ in range(3))
        return jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v @ jnp.ones((2, 3))

    traced = quietly(attention, IMAGES)
    assert [layer.is_conv for layer in traced] == [True, True, True, False]
    assert len(traced.skipped) == 2


def double(kernel: Any) -> Any:
    return kernel * 2


@pytest.mark.parametrize(
    "prune",
    [
        lambda kernel, mask: kernel,
        lambda kernel, mask: kernel.T.astype(jnp.bfloat16).reshape(4, 9)[::-1].reshape(6, 6),
        lambda kernel, mask: kernel * mask,
        lambda kernel, mask: jnp.where(mask, kernel, 0),
        lambda kernel, mask: jnp.where(jnp.abs(kernel) > jnp.median(jnp.abs(kernel)), kernel, 0),
        lambda kernel, mask: (kernel - kernel.mean(0)) / kernel.std(0),
        lambda kernel, mask: kernel + lax.stop_gradient(kernel * mask - kernel),
        lambda kernel, mask: jax.jit(double)(kernel),
        lambda kernel, mask: jax.checkpoint(double)(jax.nn.relu(kernel)),
        lambda kernel, mask: lax.cond(True, double, double, kernel),
        lambda kernel, mask: jnp.round(kernel * 8).astype(jnp.int8).astype(jnp.float32) * jnp.float32(0.125),
    ],
)
def test_sources_lead_to_the_kernel(prune: Callable[..., Any]) -> None:
    params = {"kernel": WEIGHTS, "mask": WEIGHTS > 0}
    traced = trace(lambda params, x: x @ prune(params["kernel"], params["mask"]), params, INPUTS)
    assert traced.sources == ((jax.tree_util.SequenceKey(1), jax.tree_util.DictKey("kernel")),)


@pytest.mark.parametrize(
    "weights",
    [
        lambda params: params["kernel"] + params["other"],
        lambda params: params["kernel"] @ params["other"],
        lambda params: WEIGHTS,
        lambda params: params["kernel"] + params["kernel"] @ params["other"],
        lambda params: params["kernel"][:1] * jnp.ones((6, 1)),
        lambda params: lax.while_loop(lambda c: c.sum() < 0, lambda c: c + 1, params["kernel"]),
    ],
)
def test_sources_that_mix_are_none(weights: Callable[..., Any]) -> None:
    params = {"kernel": WEIGHTS, "other": WEIGHTS + 1}
    assert quietly(lambda params, x: x @ weights(params), params, INPUTS).sources[-1] is None


def test_a_quantized_kernel_is_the_source_and_not_its_scale() -> None:
    params = {"kernel": jnp.ones((6, 6), jnp.int8), "scale": jnp.ones(6)}
    traced = trace(lambda p, x: x @ (p["kernel"].astype(jnp.float32) * p["scale"]), params, INPUTS)
    assert traced.sources == ((jax.tree_util.SequenceKey(1), jax.tree_util.DictKey("kernel")),)


def test_sources_find_their_arrays() -> None:
    params = [{"w": WEIGHTS, "b": jnp.ones(6)}, {"w": WEIGHTS.T, "b": jnp.ones(6)}]

    def mlp(params: Any, x: Any) -> Any:
        for layer in params:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return x

    traced = trace(mlp, params, INPUTS)
    arrays: dict[Any, Any] = dict(jax.tree_util.tree_leaves_with_path((mlp, params, INPUTS)))
    for layer, source in zip(traced, traced.sources, strict=True):
        np.testing.assert_array_equal(layer.weights, arrays[source] != 0)
    assert [layer.name for layer in traced] == ["0.w", "1.w"]


def test_sources_of_a_kernel_that_a_scan_closes_over() -> None:
    def rnn(kernel: Any, x: Any) -> Any:
        return lax.scan(lambda c, _: (c @ kernel["cell"]["kernel"], None), x, None, 2)[0]

    traced = trace(rnn, {"cell": {"kernel": WEIGHTS}}, INPUTS)
    assert [layer.name for layer in traced] == ["cell[0]", "cell[1]"]
    assert [jax.tree_util.keystr(source) for source in traced.sources if source] == ["[1]['cell']['kernel']"] * 2


def test_names_come_from_scopes_else_from_the_line() -> None:
    def scoped(x: Any) -> Any:
        with jax.named_scope("block"):
            x = jax.jit(lambda y: jax.vmap(jax.named_scope("conv")(lambda row: row @ WEIGHTS))(y))(x)
        return x @ WEIGHTS

    def loop(x: Any) -> Any:
        return lax.scan(lambda c, _: (lax.scan(lambda d, _: (d @ WEIGHTS, None), c, None, 2)[0], None), x, None, 2)[0]

    first, second = (str(layer.name) for layer in trace(scoped, INPUTS))
    assert first == "block/conv"
    line = scoped.__code__.co_firstlineno + 3
    assert second == f"scoped:{line}"
    names = [str(layer.name) for layer in trace(loop, INPUTS)]
    assert [name[name.index("[") :] for name in names] == ["[0][0]", "[0][1]", "[1][0]", "[1][1]"]
    assert [
        layer.name for layer in trace(jax.named_scope("conv")(lambda x: x @ WEIGHTS @ WEIGHTS @ WEIGHTS), INPUTS)
    ] == [
        "conv",
        "conv#2",
        "conv#3",
    ]


def test_is_a_sequence_that_everything_takes() -> None:
    traced = trace(lambda x: conv(conv(x, KERNEL), KERNEL), IMAGES)
    assert isinstance(traced[0], Layer)
    assert traced[:1] == (traced[0],)
    assert traced.index(traced[1]) == 1
    assert "2 layers" in repr(traced)
    report = simulate(traced, Phantom2D())
    assert report.cycles.shape == (4,)
    direct = Layer.conv(KERNEL, IMAGES, name="by hand")
    assert (report.layers[0].cycles == simulate(direct, Phantom2D()).cycles).all()


def test_a_callable_that_is_a_pytree_is_an_input() -> None:
    @functools.partial(jax.tree_util.register_dataclass, data_fields=["kernel", "activation"], meta_fields=["scale"])
    class Dense:
        def __init__(self, kernel: Any, activation: Any, scale: float) -> None:
            self.kernel, self.activation, self.scale = kernel, activation, scale

        def __call__(self, x: Any) -> Any:
            return self.activation(x @ self.kernel) * self.scale

    dense = Dense.__new__(Dense)
    dense.__init__(WEIGHTS, jnp.tanh, 2.0)
    traced = trace(dense, INPUTS)
    assert traced.sources == ((jax.tree_util.SequenceKey(0), jax.tree_util.GetAttrKey("kernel")),)
    assert traced[0].name == "kernel"
    np.testing.assert_array_equal(traced.outputs, dense(INPUTS))


def test_takes_numbers_numpy_and_types_of_few_bits() -> None:
    traced = trace(
        lambda x, w, factor: (x.astype(w.dtype) @ w) * factor,
        np.eye(3),
        jnp.eye(3, dtype=jnp.float8_e4m3fn),
        2,
        weight_argnums=1,
    )
    assert traced[0].weights.sum() == 3
    assert trace(lambda k, x: jax.random.normal(k, (2, 3)) @ x, jax.random.key(0), np.eye(3)).outputs.shape == (2, 3)
    assert trace(lambda k: jax.random.split(k)[0], jax.random.key(0)).outputs.shape == ()


def test_values_that_are_dead_are_let_go_of() -> None:
    alive, most = set(), 0

    def count(step: Any) -> None:
        nonlocal most
        most = max(most, sum(array.size == 123_457 for array in jax.live_arrays()))
        alive.add(int(step))

    def chain(x: Any) -> Any:
        for step in range(8):
            x = x + x[:, :1] @ jnp.ones((1, 1))
            jax.debug.callback(count, step)
        return x.sum()

    trace(chain, jnp.zeros((1, 123_457)))
    assert len(alive) == 8
    assert most <= 4


@pytest.mark.parametrize(
    ("fn", "args", "message"),
    [
        (3, (), "fn must be callable, got 3"),
        (lambda x: x, ({"mode": "train", "x": INPUTS},), r"args\[0\]\['mode'\] must be an array or .*, got 'train'"),
        (lambda x: x, (np.array(["a"]),), r"args\[0\] must be an array or a number"),
        (lambda x: x, (2**80,), r"args\[0\] must be an array or a number"),
        (lambda x: x @ (WEIGHTS * jnp.nan), (INPUTS,), r"weights of .*, of shape \(6, 6\), must not hold NaN, got 36"),
        (jax.named_scope("head")(lambda x: x @ WEIGHTS), (INPUTS / INPUTS,), "activations of head.* must not hold NaN"),
        (conv, (IMAGES.at[0, 0, 0, 0].set(jnp.nan), KERNEL), "activations of .* must not hold NaN, got 1 of them"),
    ],
)  # fmt: skip
def test_bad_arguments(fn: Any, args: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(fn, *args)


def test_nan_where_no_mask_is_needed_is_no_error() -> None:
    traced = quietly(lambda q: jnp.einsum("bqc,bkc->bqk", q, q), jnp.full((2, 3, 4), jnp.nan))
    assert np.isnan(traced.outputs).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_argnums": 1}, "weight_argnums must be positions among the 1 arguments of fn, got 1"),
        ({"weight_argnums": (0, True)}, r"weight_argnums must be positions among .*, got \(0, True\)"),
        ({"weight_argnums": "w"}, "weight_argnums must be positions among .*, got 'w'"),
        ({"batch": -1}, "batch must be a non-negative integer, got -1"),
        ({"batch": 2}, "batch must be an axis of the inputs, got 2; they have fewer axes"),
        ({"batch": {"args[0]": 2}}, r"batch\['args\[0\]'\] must be an axis of an array of shape \(4, 6\), got 2"),
        ({"batch": {"head": 0}}, r"batch must name inputs or layers, got 'head'; there are args\[0\], <lambda>:"),
        ({"batch": {"args[0]": "x"}}, r"batch\['args\[0\]'\] must be a non-negative integer, got 'x'"),
    ],
)
def test_bad_options(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(lambda x: x @ WEIGHTS, INPUTS, **options)


def test_traced_arguments() -> None:
    with pytest.raises(ValueError, match="trace must be called outside of jit"):
        jax.jit(lambda x: trace(jnp.matmul, INPUTS, WEIGHTS).outputs + x)(1.0)
    message = r"args\[1\] must be concrete, got a traced array of shape \(6, 6\): call trace outside of jit, grad"
    with pytest.raises(ValueError, match=message):
        jax.grad(lambda w: trace(jnp.matmul, INPUTS, w).outputs.sum())(WEIGHTS)
    with pytest.raises(ValueError, match="what fn refers to must be concrete"):
        jax.grad(lambda w: trace(lambda x: x @ w, INPUTS).outputs.sum())(WEIGHTS)


def test_what_cannot_be_seen_into_is_reported() -> None:
    weights = jnp.ones((3, 2))
    exported = jax.export.export(jax.jit(lambda x: x @ weights))(jnp.ones((2, 3)))
    with pytest.warns(UserWarning, match="call_exported"):
        layers = trace(lambda x: exported.call(x), jnp.ones((2, 3)))
    assert not len(layers)
    (skipped,) = layers.skipped
    assert skipped.reason == "what it contracts cannot be seen"
    np.testing.assert_array_equal(layers.outputs, np.full((2, 2), 3))
