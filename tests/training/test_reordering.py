"""Channels in another order: the same outputs, never more cycles."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flax import nnx

from phantom_jax import Phantom2D, simulate
from phantom_jax.sparsity import GlobalMagnitude, Masked, keep_density
from phantom_jax.training import Channels, channels_of, reorder
from phantom_jax.training.networks import mobilenet_small, vgg16, vgg_small

IMAGES = np.random.default_rng(0).random((2, 16, 16, 1)).astype(np.float32)
NETWORKS: dict[str, Callable[[], nnx.Module]] = {
    "vgg_small": lambda: vgg_small((16, 16, 1), 10, nnx.Rngs(0), stages=((8,), (12,))),
    "mobilenet_small": lambda: mobilenet_small((16, 16, 1), 10, nnx.Rngs(0), stem=8, pairs=((24, 1), (32, 1))),
}


@functools.cache
def make(name: str) -> Masked:
    """Returns a network with a mask of a third, and statistics that differ by channel."""
    model = Masked(NETWORKS[name](), IMAGES)
    rng = np.random.default_rng(1)
    for variable in [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.BatchStat)]:
        variable.set_value(np.asarray(rng.random(variable.get_value().shape), np.float32) + 0.5)
    model.set_masks(keep_density(GlobalMagnitude().scores(model, ()), 0.3))
    model.eval()
    return model


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "mobilenet_small" else name for name in NETWORKS]
)
def test_outputs_stay_and_cycles_fall(name: str) -> None:
    model, arch = make(name), Phantom2D(rows=2, cols=2)
    found = reorder(model, channels_of(model.network), IMAGES, arch, swaps=4)
    np.testing.assert_allclose(found.model(IMAGES), model(IMAGES), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.before, simulate(model.trace(IMAGES), arch).cycles)
    np.testing.assert_array_equal(found.after, simulate(found.model.trace(IMAGES), arch).cycles)
    assert found.after.sum() < found.before.sum()
    for order in found.orders:
        assert sorted(order) == list(range(len(order)))
    kept = [[int(of.masks[name].get_value().sum()) for name in model.names] for of in (model, found.model)]
    assert kept[0] == kept[1]
    again = reorder(model, channels_of(model.network), IMAGES, arch, swaps=4)
    assert [order.tolist() for order in again.orders] == [order.tolist() for order in found.orders]


def test_channels_behind_a_flattening() -> None:
    image = np.zeros((1, 32, 32, 3), np.float32)
    found = channels_of(nnx.eval_shape(lambda: vgg16(image.shape[1:], 10, nnx.Rngs(0))))
    assert found[12] == Channels(("conv5_3",), ("fc6",))
    assert len(found) == 15


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (
            Channels(("conv9",), ("conv2_1",)),
            r"channels\[0\] must name layers of the model \(conv1_1, conv2_1, fc3\), got",
        ),
        (Channels((), ("conv2_1",)), "must have producers and consumers"),
        (Channels(("conv1_1", "conv2_1"), ("fc3",)), "producers after the first must be depthwise layers of 8 filters"),
        (Channels(("conv2_1",), ("conv2_1",)), "consumers must be layers without groups that read 12 channels"),
        (Channels(("conv1_1",), ("conv2_1",)), "channels must name all that knows them"),
    ],
)
def test_channels_that_are_wrong_are_refused(channels: Channels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reorder(make("vgg_small"), [channels], IMAGES, Phantom2D(rows=2, cols=2), swaps=4)


def test_other_bad_input_is_refused() -> None:
    network: Any = NETWORKS["vgg_small"]()
    with pytest.raises(ValueError, match="model must be a Masked network with masks that are set, got VGG"):
        reorder(network, [], IMAGES, Phantom2D())
    with pytest.raises(ValueError, match=r"network must be one of phantom_jax.training.networks, got Linear"):
        channels_of(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="swaps must be a non-negative integer, got -1"):
        reorder(make("vgg_small"), [], IMAGES, Phantom2D(), swaps=-1)
