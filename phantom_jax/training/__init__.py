"""Training of sparse networks with cycles in the loss: phases, checkpoints, exact evaluation."""

from phantom_jax.training.checkpoints import Checkpoints
from phantom_jax.training.evaluation import Evaluation, evaluate, phases_table
from phantom_jax.training.reordering import Channels, Reordered, channels_of, reorder
from phantom_jax.training.settings import PHASES, Phase, Settings
from phantom_jax.training.trainer import Snapshot, Trainer

__all__ = [
    "PHASES",
    "Channels",
    "Checkpoints",
    "Evaluation",
    "Phase",
    "Reordered",
    "Settings",
    "Snapshot",
    "Trainer",
    "channels_of",
    "evaluate",
    "phases_table",
    "reorder",
]
