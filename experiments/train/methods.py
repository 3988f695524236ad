"""Methods by name, with the learner's rival and its ablations: what the penalty's gradient is of in place of cycles."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from phantom_jax import Calibration, Layer, Phantom2D, calibrate, expected_cycles_from
from phantom_jax.sparsity import (
    NM,
    CycleAware,
    GlobalMagnitude,
    MacAwareMagnitude,
    Method,
    UniformMagnitude,
    macs_per_weight,
)


@dataclasses.dataclass(frozen=True)
class ExpectedMacs:
    """Expected effectual MACs, as a share of those of all weights: what is gained by knowing cycles."""

    def data(self, layers: Sequence[Layer], arch: Phantom2D) -> list[np.ndarray]:
        """Returns the effectual MACs of each weight, by layer."""
        return [macs_per_weight(layer).astype(np.float32) for layer in layers]

    def __call__(self, probabilities: Sequence[jax.Array], share: jax.Array, data: list[jax.Array]) -> jax.Array:
        """Returns the share of MACs."""
        total = jnp.stack([counts.sum() for counts in data]).sum()
        return sum(((counts * p).sum() for counts, p in zip(data, probabilities, strict=True)), jnp.zeros(())) / total


@dataclasses.dataclass(frozen=True)
class _Elsewhere:
    """Expected cycles on another mesh or of other activations, scaled to those that are held.

    A weight saves the share of the cycles that it would save there. So only where weights are worth more or less than
    others differs, and the penalty's first weight serves all.
    """

    def __call__(self, probabilities: Sequence[jax.Array], share: jax.Array, data: Calibration) -> jax.Array:
        """Returns a cost whose gradient is that of those cycles, scaled by the ratio of both."""
        return share * jnp.log(expected_cycles_from(data, probabilities).sum())


@dataclasses.dataclass(frozen=True)
class SingleCore(_Elsewhere):
    """Expected cycles of a single core, so a sum over all jobs: what is gained by knowing which cores wait."""

    def data(self, layers: Sequence[Layer], arch: Phantom2D) -> Calibration:
        """Returns a calibration for a mesh of one core."""
        return calibrate(layers, dataclasses.replace(arch, rows=1, cols=1))


@dataclasses.dataclass(frozen=True)
class DenseActivations(_Elsewhere):
    """Expected cycles where no activation is zero: what is gained by knowing activations."""

    def data(self, layers: Sequence[Layer], arch: Phantom2D) -> Calibration:
        """Returns a calibration on activations of ones; a single image, as all would be the same."""
        ones = [
            dataclasses.replace(layer, activations=np.ones((1, *layer.activations.shape[1:]), bool)) for layer in layers
        ]
        return calibrate(ones, arch)


LEARNERS: Mapping[str, Callable[[], Method]] = {
    "mac_penalty": lambda: CycleAware(ExpectedMacs()),
    "no_mesh": lambda: CycleAware(SingleCore()),
    "no_activations": lambda: CycleAware(DenseActivations()),
    # The first calibration serves throughout. Later ones are of the network as it has become, and of other images too.
    "stale": lambda: CycleAware(recalibrates=False),
    "cycle_aware": CycleAware,
}
METHODS: Mapping[str, Callable[..., Method]] = {
    "global_magnitude": GlobalMagnitude,
    "uniform_magnitude": UniformMagnitude,
    "mac_aware_magnitude": MacAwareMagnitude,
    "n_m": NM,
    **LEARNERS,
}
