"""What the tests draw from: architectures, layers and their scalar twins."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D
from tests.reference import scalar

# Fixed, because each compiles anew; varied so that every word size, tile shape and rule is met.
ARCHS = (
    Phantom2D(),
    Phantom2D(selector="in_order", lookahead=9),
    Phantom2D(intra_balance=False, inter_balance=False),
    Phantom2D(rows=3, cols=2, pes=2, threads=4, lookahead=5),
    Phantom2D(rows=1, cols=1, pes=1, threads=1, lookahead=1),
    Phantom2D(rows=2, cols=3, pes=4, threads=2, lookahead=7, selector="in_order", intra_balance=False),
    Phantom2D(rows=5, cols=2, pes=2, threads=9, lookahead=4, inter_balance=False),  # entries of 16 bits
    Phantom2D(rows=2, cols=2, pes=1, threads=18, lookahead=6),  # entries of 32 bits
    Phantom2D(rows=3, cols=1, pes=2, threads=35, lookahead=3, selector="in_order"),  # entries of two words
    Phantom2D(rows=4, cols=2, pes=3, threads=2, lookahead=40),  # bins of two words
    Phantom2D(rows=6, cols=5, pes=2, threads=3, lookahead=100),  # a lookahead beyond most streams
    Phantom2D(rows=70, cols=66, pes=3, threads=1, lookahead=3),  # a mesh beyond most layers
    Phantom2D(rows=9, cols=1, pes=5, threads=3, lookahead=2, intra_balance=False),
    Phantom2D(rows=1, cols=4, pes=3, threads=3, lookahead=64, inter_balance=False),
)

DTYPES = (np.bool_, np.int8, np.uint8, np.int64, np.float16, np.float32, np.float64)


def twin(arch: Phantom2D) -> scalar.Arch:
    """Returns the reference's form of an architecture."""
    return scalar.Arch(**dataclasses.asdict(arch))


def problem(layer: Layer, image: int, padding: Any = None) -> scalar.Problem:
    """Returns the reference's form of one image of a layer; `padding` is what the user wrote, if it is known."""
    activations = np.asarray(layer.activations)[image]
    if not layer.is_conv:
        activations = activations.reshape(-1, activations.shape[-1])
    return scalar.Problem(
        weights=np.asarray(layer.weights),
        activations=activations,
        strides=layer.strides,
        padding=layer.padding if padding is None else padding,
        input_dilation=layer.input_dilation,
        kernel_dilation=layer.kernel_dilation,
        groups=layer.feature_group_count,
    )


def random_mask(rng: np.random.Generator, shape: tuple[int, ...], density: float, spread: bool) -> np.ndarray:
    """Returns a mask whose density varies over its last axis if `spread`, with dead and full slices."""
    per_slice = rng.choice([0.0, density / 2, density, 1.0], size=shape[-1]) if spread else density
    return rng.random(shape) < per_slice


@st.composite
def layers(draw: st.DrawFn, batch: int | None = None) -> tuple[Layer, object]:
    """Draws a small layer of any kind, with the padding as a user would write it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = batch if batch is not None else draw(st.sampled_from([1, 1, 2, 3]))
    densities = [draw(st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0])) for _ in range(2)]
    spreads = [draw(st.booleans()) for _ in range(2)]

    def masks(*shapes: tuple[int, ...]) -> list[np.ndarray]:
        arrays = [random_mask(rng, *drawn) for drawn in zip(shapes, densities, spreads, strict=True)]
        # Any non-zero value is a one, negative and tiny ones included.
        values = [draw(st.sampled_from([1, 1, -1, 3])) for _ in arrays]
        dtypes = [draw(st.sampled_from(DTYPES)) for _ in arrays]
        return [
            array.astype(dtype) * dtype(max(value, 0) if dtype == np.uint8 else value) if dtype != np.bool_ else array
            for array, value, dtype in zip(arrays, values, dtypes, strict=True)
        ]

    kind = draw(st.sampled_from(["conv", "conv", "conv", "depthwise", "pointwise", "dense", "positions"]))
    if kind in ("dense", "positions"):
        channels, filters = draw(st.integers(1, 70)), draw(st.integers(1, 12))
        positions = (draw(st.integers(1, 40)),) if kind == "positions" else ()
        weights, activations = masks((channels, filters), (images, *positions, channels))
        return Layer.dense(weights, activations), None

    rank = draw(st.integers(1, 3))
    longest = {1: 40, 2: 9, 3: 5}[rank]
    spatial = [draw(st.integers(1, longest)) for _ in range(rank)]
    kernel = [1 if kind == "pointwise" else draw(st.integers(1, {1: 7, 2: 4, 3: 3}[rank])) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = [draw(st.sampled_from([1, 1, 2])) for _ in range(rank)]
    input_dilation = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in range(rank)]
    if kind == "depthwise":
        groups = draw(st.integers(1, 8))
        per_group, multiplier = 1, draw(st.sampled_from([1, 1, 2]))
    else:
        groups = draw(st.sampled_from([1, 1, 2, 3]))
        per_group, multiplier = (
            draw(st.integers(1, {1: 30, 2: 12, 3: 4}[rank] if kind == "conv" else 40)),
            draw(st.integers(1, 5)),
        )
    extents = [(size - 1) * d + 1 for size, d in zip(kernel, dilation, strict=True)]
    sizes = [(size - 1) * d + 1 for size, d in zip(spatial, input_dilation, strict=True)]
    fits = all(size >= extent for size, extent in zip(sizes, extents, strict=True))
    written = draw(st.sampled_from(["SAME", "pairs", "int", *(["VALID"] if fits else [])]))
    if any(d != 1 for d in input_dilation) and written in ("SAME", "VALID"):
        written = "pairs"
    lacking = [max(0, extent - size) for size, extent in zip(sizes, extents, strict=True)]
    if written == "int":
        padding: Any = max(lacking) + draw(st.integers(0, 1))
        pads: Any = [(padding, padding)] * rank
    elif written == "pairs":
        padding = [(lack + draw(st.integers(0, 2)), draw(st.integers(0, 2))) for lack in lacking]
        pads = padding
    else:
        padding = pads = written
    one = draw(st.booleans()) and len(set(strides)) == 1
    weights, activations = masks((*kernel, per_group, groups * multiplier), (images, *spatial, groups * per_group))
    layer = Layer.conv(
        weights,
        activations,
        strides=strides[0] if one else strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=dilation,
        feature_group_count=groups,
    )
    return layer, pads


def convolve(layer: Layer, weights: Any, activations: Any) -> np.ndarray:
    """Convolves values in the geometry of a layer, as JAX does, in 32 bits: `[B, *spatial, K]`."""
    outputs = jax.lax.conv_general_dilated(
        jnp.asarray(activations, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        layer.strides,
        layer.padding,
        lhs_dilation=layer.input_dilation,
        rhs_dilation=layer.kernel_dilation,
        dimension_numbers=dimension_numbers(layer),
        feature_group_count=layer.feature_group_count,
    )
    return np.asarray(outputs)


def dimension_numbers(layer: Layer) -> tuple[str, str, str]:
    """Returns JAX's name for the layouts of a convolution: channels last, and kernels as HWIO."""
    spatial = "DHW"[3 - len(layer.strides) :]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"
