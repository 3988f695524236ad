"""Where a user's configuration forbids that ranks and types are promoted, the library says the same as elsewhere."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from phantom_jax import Layer, Phantom2D, baselines, calibrate, expected_cycles, expected_cycles_from, simulate, trace
from phantom_jax.exact import core_cycles
from phantom_jax.sparsity import (
    CycleAware,
    GlobalMagnitude,
    Keep,
    Masked,
    activation_prices,
    additive_adam,
    cycle_penalty,
    dense_cycles,
    keep_density,
    macs_per_weight,
    priced_activity,
)

RNG = np.random.default_rng(0)
LANES = Phantom2D(rows=2, cols=2)
WORDS = Phantom2D(rows=2, cols=2, pes=2, threads=2, lookahead=5, selector="in_order")
WIDE = Phantom2D(rows=2, cols=2, pes=4, threads=4, lookahead=6, inter_balance=False)
CONV = Layer.conv(RNG.random((3, 3, 4, 6)) < 0.5, RNG.random((2, 7, 7, 4)) < 0.5, strides=2, name="conv")
DEPTHWISE = Layer.conv(
    RNG.random((3, 3, 1, 4)) < 0.5, RNG.random((2, 7, 7, 4)) < 0.5, feature_group_count=4, name="depthwise"
)
DENSE = Layer.dense(RNG.random((30, 6)) < 0.5, RNG.random((2, 30)) < 0.5, name="dense")
LAYERS = [CONV, DEPTHWISE, DENSE]
CHANCES = {str(layer.name): RNG.random(layer.weights.shape) for layer in LAYERS}
IMAGES = jnp.asarray(RNG.random((2, 6, 6, 2)), jnp.float32)


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Forbids promotion in all threads."""
    strict = {"jax_numpy_rank_promotion": "raise", "jax_numpy_dtype_promotion": "strict"}
    before = {name: getattr(jax.config, name) for name in strict}
    try:
        for name, value in strict.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def program(function: Callable[..., Any], *args: Any) -> str:
    """Returns what is to be compiled of a function, as text."""
    return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(function)(*args)))


def slopes(layer: Layer, arch: Phantom2D, is_hard: bool = True) -> str:
    """Returns the program of expected cycles and their derivatives, which are taken outside of what is compiled."""
    activations = layer.activations if is_hard else jnp.asarray(0.5 * layer.activations, jnp.float32)

    @jax.jit
    def cycles(weights: Any) -> jax.Array:
        return expected_cycles(dataclasses.replace(layer, weights=weights, activations=activations), arch).sum()

    return program(jax.value_and_grad(cycles), jnp.asarray(CHANCES[str(layer.name)], jnp.float32))


def calibrated(layer: Layer, arch: Phantom2D) -> list[str]:
    """Returns the programs of expected cycles for probabilities of different types, and for a mask."""
    calibration, chances = calibrate(layer, arch), CHANCES[str(layer.name)]
    return [
        program(lambda weights: expected_cycles_from(calibration, [weights]), weights)
        for weights in (jnp.asarray(chances, jnp.bfloat16), chances, layer.weights)
    ]


class Network(nnx.Module):
    def __init__(self) -> None:
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=nnx.Rngs(0))
        self.head = nnx.Linear(144, 3, rngs=nnx.Rngs(1))

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.head(jax.nn.relu(self.conv(images)).reshape(len(images), -1))


def masked() -> Any:
    """Returns what a masked network gives, and the program of a step that learns which weights to keep."""
    model = Masked(Network(), IMAGES)
    layers = model.trace(IMAGES)
    model.set_masks(keep_density(GlobalMagnitude().scores(model, layers), 0.5))
    found = [model(IMAGES), model.density()]
    model.learn(CycleAware().logits(model))
    optimizer = nnx.Optimizer(
        model, optax.chain(cycle_penalty(dense_cycles(layers, WORDS), 0.3), additive_adam(0.05)), wrt=Keep
    )
    calibration, graph = calibrate(layers, WORDS), nnx.graphdef((model, optimizer))

    def step(state: Any) -> Any:
        model, optimizer = nnx.merge(graph, state)

        def loss(model: Masked) -> jax.Array:
            outputs, inputs = model.with_inputs(IMAGES, key=jax.random.key(1))
            return jnp.square(outputs).mean() + priced_activity(inputs, {"conv": np.ones(2), "head": np.ones(144)})

        optimizer.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, Keep))(model), calibration=calibration)
        return nnx.state((model, optimizer))

    return [*found, program(step, nnx.state((model, optimizer)))]


CALLS: dict[str, Callable[[], Any]] = {
    "simulate, by lanes": lambda: simulate(LAYERS, LANES).to_dict(),
    "simulate, by words": lambda: simulate(LAYERS, WORDS).to_dict(),
    "simulate, wide, other types": lambda: simulate(
        [Layer.dense(jnp.asarray(DENSE.weights, jnp.bfloat16), jnp.asarray(DENSE.activations, jnp.int8))], WIDE
    ).to_dict(),
    "core_cycles": lambda: core_cycles(CONV, WORDS),
    "expected_cycles of masks": lambda: program(lambda: expected_cycles(LAYERS, WORDS)),
    "expected_cycles, patterns": lambda: slopes(CONV, WORDS),
    "expected_cycles, single": lambda: slopes(DEPTHWISE, LANES),
    "expected_cycles, chain": lambda: slopes(DENSE, WORDS),
    "expected_cycles, blocks": lambda: slopes(DENSE, LANES),
    "expected_cycles, samples": lambda: slopes(CONV, WIDE),
    "expected_cycles, probable activations": lambda: slopes(CONV, WORDS, is_hard=False),
    "expected_cycles, chain, probable activations": lambda: slopes(DENSE, WORDS, is_hard=False),
    "calibrate, patterns": lambda: calibrated(CONV, WORDS),
    "calibrate, chain": lambda: calibrated(DENSE, WORDS),
    "macs_per_weight": lambda: [macs_per_weight(layer) for layer in LAYERS],
    "activation_prices": lambda: activation_prices([DENSE], {"dense": CHANCES["dense"]}, WORDS),
    "trace": lambda: [layer.activations for layer in trace(Network(), IMAGES)],
    "masked": masked,
    "dense": lambda: baselines.Dense(arch=WORDS).simulate(LAYERS).to_dict(),
    "scnn": lambda: baselines.SCNN(bank_conflicts=True).simulate(LAYERS).to_dict(),
    "sparten": lambda: baselines.SparTen().simulate(LAYERS).to_dict(),
    "eyeriss_v2": lambda: baselines.EyerissV2().simulate(LAYERS).to_dict(),
}


SLOW = ("activation_prices", "expected_cycles, chain, probable activations", "expected_cycles, blocks")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CALLS])
def test_what_may_not_be_promoted_elsewhere_is_the_same_here(name: str) -> None:
    with strictly():
        found = CALLS[name]()
    jax.tree.map(np.testing.assert_array_equal, found, CALLS[name]())
