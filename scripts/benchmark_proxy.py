"""Measures how fast the proxy is; a part of scripts/benchmark.py, which imports it."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

IMAGES = (1, 4)
_BATCH = 64
_CONVOLUTIONS = ((3, 3, 1, 32), (3, 3, 32, 64), (3, 3, 64, 128))  # of a small network on pictures of 28x28
_DENSE = (128, 10)


def measure_penalty(measure: Callable) -> dict[str, Any]:
    """Value and gradient of a small network's expected cycles, in turns with a training step of the network itself."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from phantom_jax import Layer, Phantom2D, calibrate, expected_cycles_from

    rng = np.random.default_rng(0)
    shapes = [*_CONVOLUTIONS, _DENSE]
    weights = [(rng.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5).astype(np.float32) for shape in shapes]
    pictures = np.maximum(rng.normal(size=(_BATCH, 28, 28, 1)), 0).astype(np.float32)
    labels = rng.integers(0, 10, _BATCH)

    def network(weights: list, pictures: Any) -> tuple[Any, list]:
        inputs, values = [], pictures
        for index, kernel in enumerate(weights[:-1]):
            inputs.append(values)
            numbers = ("NHWC", "HWIO", "NHWC")
            values = jax.nn.relu(
                jax.lax.conv_general_dilated(values, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            )
            if index < 2:
                window = (1, 2, 2, 1)
                values = jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, window, "VALID")
        inputs.append(values.mean((1, 2)))
        return inputs[-1] @ weights[-1], inputs

    def loss(weights: list) -> Any:
        return -jax.nn.log_softmax(network(weights, pictures)[0])[np.arange(_BATCH), labels].mean()

    @jax.jit
    def train(weights: list, momentum: list) -> tuple[list, list]:
        momentum = jax.tree.map(lambda moved, slope: 0.9 * moved + slope, momentum, jax.grad(loss)(weights))
        return jax.tree.map(lambda weight, moved: weight - 0.01 * moved, weights, momentum), momentum

    _, inputs = network(weights, pictures)
    step = jax.jit(jax.value_and_grad(lambda chances, calibration: expected_cycles_from(calibration, chances).sum()))
    chances = [rng.uniform(0.1, 0.6, shape).astype(np.float32) for shape in shapes]
    momentum = [np.zeros_like(weight) for weight in weights]
    runs, first = {"training step": lambda: jax.block_until_ready(train(weights, momentum))}, {}
    for images in IMAGES:
        masks = [np.asarray(values[:images]) != 0 for values in inputs]
        layers = [Layer.conv(kernel, mask) for kernel, mask in zip(weights[:-1], masks, strict=False)]
        layers.append(Layer.dense(weights[-1], masks[-1]))
        calibration = calibrate(layers, Phantom2D())
        name = f"value and gradient, {images} image{'s' * (images > 1)}"
        runs[name] = functools.partial(lambda given: jax.block_until_ready(step(chances, given)), calibration)
        begin = time.perf_counter()
        runs[name]()
        first[name] = time.perf_counter() - begin
    seconds = measure(**runs)
    return {
        name: {"seconds": taken, "of_step": taken / seconds["training step"], "first_seconds": first.get(name)}
        for name, taken in seconds.items()
    }


def convolutions(size: int) -> dict[str, float]:
    """Calibration, value and gradient of VGG16's convolutions, in a process that has done nothing else."""
    import jax
    import numpy as np

    from phantom_jax import Phantom2D, calibrate, expected_cycles_from, workloads

    workload = workloads.SyntheticWorkload(workloads.vgg16(size=size), seed=0)
    layers = [layer for layer in workload if layer.is_conv]
    chances = [np.random.default_rng(0).beta(0.7, 1.4, layer.weights.shape).astype(np.float32) for layer in layers]
    step = jax.jit(jax.value_and_grad(lambda chances, calibration: expected_cycles_from(calibration, chances).sum()))

    def timed(run: Callable) -> tuple[float, Any]:
        begin = time.perf_counter()
        result = jax.block_until_ready(run())
        return time.perf_counter() - begin, result

    first_calibration, calibration = timed(lambda: calibrate(layers, Phantom2D()))
    again, _ = timed(lambda: calibrate(layers, Phantom2D()))
    first, _ = timed(lambda: step(chances, calibration))
    return {
        "first_calibration_seconds": first_calibration,
        "calibration_seconds": again,
        "first_seconds": first,
        "seconds": statistics.median(timed(lambda: step(chances, calibration))[0] for _ in range(3)),
    }
