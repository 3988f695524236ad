"""Accuracy and exact cycles on images that training has not seen."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.table import Table

from phantom_jax.arch import Phantom2D
from phantom_jax.exact import simulate
from phantom_jax.layer import Layer
from phantom_jax.report import Report
from phantom_jax.sparsity import Masked
from phantom_jax.tables import new_table
from phantom_jax.training.data import Subset

_BATCH = 256  # images whose classes are predicted together


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network does on images."""

    correct: np.ndarray  # bool [images], in order
    report: Report  # of the first images, exact
    layers: tuple[Layer, ...]  # of these images

    @property
    def accuracy(self) -> float:
        """The share of images whose class is predicted."""
        return float(self.correct.mean())

    @property
    def cycle_shares(self) -> np.ndarray:
        """Exact cycles of each image, as a share of the dense cycles of the same mesh and mapping; float [images]."""
        return self.report.cycles / sum(layer.dense_cycles for layer in self.report.layers)

    def summary(self) -> dict[str, Any]:
        """Returns accuracy, cycles with their standard deviation over images, and speed-up as plain numbers."""
        shares = self.cycle_shares
        return {
            "accuracy": self.accuracy,
            "images": len(self.correct),
            "cycles_mean": float(self.report.cycles.mean()),
            "cycles_std": float(self.report.cycles.std()),
            "cycles_images": len(shares),
            "dense_cycles": sum(layer.dense_cycles for layer in self.report.layers),
            "cycle_share": float(shares.mean()),
            "speedup": float(1 / shares.mean()),
        }


def phases_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns a table of what a network did on test images at the end of each phase.

    Args:
        rows: By phase: its name as `phase`, and figures of `Evaluation.summary`, `density` and `validation_accuracy`.
    """
    table = new_table(
        "At the end of each phase",
        "accuracy and exact cycles on test images; cycles as a share of the dense ones, with the deviation over images",
        ["phase"],
        ["accuracy", "validation", "weights", "cycles", "share", "speed-up"],
    )
    for row in rows:
        spread = row["cycles_std"] / row["dense_cycles"]
        table.add_row(
            row["phase"],
            f"{row['accuracy']:.2%}",
            f"{row['validation_accuracy']:.2%}",
            f"{row['density']:.3f}",
            f"{row['cycles_mean']:,.0f}",
            f"{row['cycle_share']:.4f} ± {spread:.4f}",
            f"{row['speedup']:.2f}x",
        )
    return table


def evaluate(model: Masked, images: Subset, arch: Phantom2D, counted: int) -> Evaluation:
    """Evaluates a network.

    Args:
        model: The network; without a key it keeps what is likelier to stay.
        images: Images with labels.
        arch: The accelerator.
        counted: Images whose cycles are counted, from the first on.
    """
    model.eval()
    batches = [images.images[start : start + _BATCH] for start in range(0, len(images.images), _BATCH)]
    predicted = np.concatenate([np.asarray(jax.device_get(_predict(model, batch))) for batch in batches])
    layers = model.trace(images.images[:counted]).layers
    model.train()
    return Evaluation(predicted == images.labels, simulate(layers, arch), layers)


@nnx.jit
def _predict(model: Masked, batch: Any) -> jax.Array:
    return model(batch).argmax(-1)
