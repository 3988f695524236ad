"""Schemas of the configuration groups.

Types that Hydra would bend (1.5 to the integer 1) are left to the library, which refuses them by name.
"""

import dataclasses
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclasses.dataclass
class ArchConfig:
    """Parameters of `phantom_jax.Phantom2D`, which validates them."""

    rows: Any = MISSING
    cols: Any = MISSING
    pes: Any = MISSING
    threads: Any = MISSING
    lookahead: Any = MISSING
    selector: str = MISSING
    intra_balance: Any = MISSING
    inter_balance: Any = MISSING


@dataclasses.dataclass
class WorkloadConfig:
    """What every workload has."""

    name: str = MISSING


@dataclasses.dataclass
class SyntheticConfig(WorkloadConfig):
    """A network with drawn masks: arguments of `phantom_jax.workloads.SyntheticWorkload`, which validates them."""

    size: Any = 224  # side of the input picture
    images: Any = 1  # each with activation masks of its own
    densities: Any = None  # name of a density table of the network; its first by default
    weight_density: Any = None  # one density for all layers, in place of the table's
    activation_density: Any = None  # likewise
    masks: str = "iid"  # iid, or channel: densities vary over filters and channels
    weight_spread: Any = 0.23  # for channel: standard deviation of filters' densities, relative to the largest possible
    activation_spread: Any = 0.77  # likewise of channels of the activations
    weight_pattern: Any = None  # kernel, channel, or N:M such as "2:4"


@dataclasses.dataclass
class MobileNetConfig(SyntheticConfig):
    """A network with a width."""

    width: Any = 1.0  # multiplier of all channels


@dataclasses.dataclass
class NpzConfig(WorkloadConfig):
    """A user's own masks."""

    path: str = MISSING  # the file; relative to where the command was typed


@dataclasses.dataclass
class DataConfig:
    """A data set for training: options of `phantom_jax.training.data`, which validates them."""

    name: str = MISSING
    dir: Any = None  # of a user's own data set; relative to where the command was typed
    size: Any = None  # side that pictures in folders are resized to; null where they are of one size
    fold: Any = 0  # which test fold; with a test set of its own, which draw of the validation images
    folds: Any = 5  # test folds that partition the images
    validation: Any = 0.1  # share of the images that are not in the test set
    shift: Any = MISSING  # augmentation: largest random shift in pixels
    flip: Any = MISSING  # augmentation: mirror at random, left for right


@dataclasses.dataclass
class FiguresConfig:
    """Pictures beside the results, as PNG and SVG."""

    write: bool = True
    layer: str | None = None  # whose rounds are mapped; by default the layer of most cycles


@dataclasses.dataclass
class TrackingConfig:
    """What every way of tracking has; `log.jsonl` is always written."""

    backend: str = MISSING  # none, or wandb


@dataclasses.dataclass
class WandbConfig(TrackingConfig):
    """Tracking with wandb: arguments of `experiments.harness.tracking.Wandb`, which validates them, and the group."""

    mode: str = MISSING  # online, offline, disabled
    project: str = MISSING
    entity: str | None = None  # by default that of the login
    name: str | None = None  # of the run; by default wandb makes one up
    group: str | None = None  # by default the name of the sweep's directory in a multirun
    tags: Any = ()


@dataclasses.dataclass
class SimulateConfig:
    """The main job."""

    arch: ArchConfig = dataclasses.field(default_factory=ArchConfig)
    workload: WorkloadConfig = dataclasses.field(default_factory=WorkloadConfig)
    figures: FiguresConfig = dataclasses.field(default_factory=FiguresConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    seed: Any = 0  # of drawn masks


@dataclasses.dataclass
class FidelityConfig:
    """The fidelity job, explained in fidelity.yaml; `experiments.fidelity.options.read_settings` validates it."""

    arch: ArchConfig = dataclasses.field(default_factory=ArchConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    studies: Any = MISSING
    layers: Any = MISSING
    masks: Any = None
    size: Any = MISSING
    images: Any = MISSING
    draws: Any = MISSING
    seed: Any = MISSING
    kinds: Any = MISSING
    densities: Any = MISSING
    density: Any = MISSING
    patterns: Any = MISSING
    blocks: Any = MISSING
    step: Any = MISSING
    redrawn: Any = MISSING
    scaled: Any = MISSING


@dataclasses.dataclass
class MapConfig:
    """The map of the comparison."""

    layer: Any = MISSING
    densities: Any = MISSING


@dataclasses.dataclass
class CompareConfig:
    """The comparison job, explained in compare.yaml; `experiments.compare.options.read_settings` validates it."""

    arch: ArchConfig = dataclasses.field(default_factory=ArchConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    networks: Any = MISSING
    size: Any = MISSING
    masks: Any = MISSING
    seeds: Any = MISSING
    sizes: Any = MISSING
    map: MapConfig = dataclasses.field(default_factory=MapConfig)


@dataclasses.dataclass
class ValidateConfig:
    """The validation job."""

    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    size: Any = MISSING
    seed: Any = MISSING


@dataclasses.dataclass
class ExploreConfig:
    """The architecture search, explained in explore.yaml."""

    arch: ArchConfig = dataclasses.field(default_factory=ArchConfig)
    workload: WorkloadConfig = dataclasses.field(default_factory=WorkloadConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    multipliers: Any = MISSING
    seed: Any = MISSING


@dataclasses.dataclass
class ModelConfig:
    """A network of `phantom_jax.training.networks`."""

    name: str = MISSING


@dataclasses.dataclass
class VggSmallConfig(ModelConfig):
    """Arguments of `phantom_jax.training.networks.vgg_small`."""

    stages: Any = MISSING


@dataclasses.dataclass
class MobileNetSmallConfig(ModelConfig):
    """Arguments of `phantom_jax.training.networks.mobilenet_small`."""

    stem: Any = MISSING
    pairs: Any = MISSING


@dataclasses.dataclass
class SparsityConfig:
    """How weights are chosen; `phantom_jax.training.Settings` explains and validates it."""

    name: str = MISSING
    cycles: Any = None
    density: Any = None
    ramp: Any = 0.6
    activation_penalty: Any = 0.0


@dataclasses.dataclass
class NMConfig(SparsityConfig):
    """Arguments of `phantom_jax.sparsity.NM`."""

    n: Any = MISSING
    m: Any = MISSING


@dataclasses.dataclass
class LearnerConfig:
    """Options of methods that learn keep probabilities: of `phantom_jax.sparsity.cycle_penalty`, and rates."""

    ramp: Any = MISSING
    logit_rate: Any = MISSING
    penalty: Any = MISSING
    gain: Any = MISSING
    damping: Any = MISSING


@dataclasses.dataclass
class CycleAwareConfig(LearnerConfig, SparsityConfig):
    """A method that learns keep probabilities."""


@dataclasses.dataclass
class OptimizerConfig:
    """The optimizer of weights."""

    name: str = MISSING
    weight_decay: Any = MISSING


@dataclasses.dataclass
class PhaseConfig:
    """A phase of training."""

    epochs: Any = MISSING
    learning_rate: Any = MISSING


@dataclasses.dataclass
class PhasesConfig:
    """The phases, in order."""

    dense: PhaseConfig = dataclasses.field(default_factory=PhaseConfig)
    sparse: PhaseConfig = dataclasses.field(default_factory=PhaseConfig)
    tune: PhaseConfig = dataclasses.field(default_factory=PhaseConfig)


@dataclasses.dataclass
class TrainingConfig:
    """What jobs that train have in common."""

    arch: ArchConfig = dataclasses.field(default_factory=ArchConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    phases: PhasesConfig = dataclasses.field(default_factory=PhasesConfig)
    seed: Any = MISSING
    batch_size: Any = MISSING
    calibrate_every: Any = MISSING
    calibration_images: Any = MISSING
    exact_images: Any = MISSING
    evaluated_images: Any = MISSING
    fast: bool = False


@dataclasses.dataclass
class TrainConfig(TrainingConfig):
    """The training job, explained in train.yaml."""

    sparsity: SparsityConfig = dataclasses.field(default_factory=SparsityConfig)
    saved_images: Any = MISSING
    checkpoint_every: Any = MISSING
    resume: Any = MISSING


@dataclasses.dataclass
class CooptimizeConfig(TrainingConfig):
    """The co-optimization job, explained in cooptimize.yaml."""

    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    targets: dict[str, Any] = dataclasses.field(default_factory=dict)
    with_activations: dict[str, Any] = dataclasses.field(default_factory=dict)
    activation_penalty: Any = MISSING
    reorder_swaps: Any = MISSING
    other_meshes: dict[str, Any] = dataclasses.field(default_factory=dict)
    folds: Any = MISSING
    accuracy_drop: Any = MISSING
    compared_with: Any = MISSING
    resamples: Any = MISSING


def register() -> None:
    """Makes the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(group="schema", name="simulate", node=SimulateConfig)
    store.store(group="schema", name="fidelity", node=FidelityConfig)
    store.store(group="schema", name="compare", node=CompareConfig)
    store.store(group="schema", name="validate", node=ValidateConfig)
    store.store(group="schema", name="explore", node=ExploreConfig)
    store.store(group="schema", name="arch", node=ArchConfig)
    store.store(group="schema", name="synthetic", node=SyntheticConfig)
    store.store(group="schema", name="mobilenet", node=MobileNetConfig)
    store.store(group="schema", name="npz", node=NpzConfig)
    store.store(group="schema", name="data", node=DataConfig)
    store.store(group="schema", name="model", node=ModelConfig)
    store.store(group="schema", name="vgg_small", node=VggSmallConfig)
    store.store(group="schema", name="mobilenet_small", node=MobileNetSmallConfig)
    store.store(group="schema", name="sparsity", node=SparsityConfig)
    store.store(group="schema", name="n_m", node=NMConfig)
    store.store(group="schema", name="cycle_aware", node=CycleAwareConfig)
    store.store(group="schema", name="optimizer", node=OptimizerConfig)
    store.store(group="schema", name="train", node=TrainConfig)
    store.store(group="schema", name="cooptimize", node=CooptimizeConfig)
    store.store(group="schema", name="tracking", node=TrackingConfig)
    store.store(group="schema", name="wandb", node=WandbConfig)
