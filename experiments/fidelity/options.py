"""What the fidelity command measures: configuration -> settings -> cases, and the file that keeps cases."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.fidelity.cases import STUDIES, Case
from experiments.fidelity.draws import KINDS
from experiments.fidelity.studies import measure_error, measure_gradient, measure_rank, measure_stale
from experiments.harness.cases import Key
from experiments.harness.cases import resume as resume_cases
from experiments.harness.options import check_names, each
from experiments.harness.workload import layer_name
from phantom_jax import Layer, Phantom2D
from phantom_jax.checks import check_seed, integer, number, one_of
from phantom_jax.workloads import NETWORKS, SyntheticWorkload, Workload, read_npz

_MEASURES: dict[str, Callable[..., Case]] = {
    "error": measure_error,
    "rank": measure_rank,
    "gradient": measure_gradient,
    "stale": measure_stale,
}
# Options that say which cases are measured; the others say how.
SELECTIONS = ("studies", "layers", "path", "mask_kinds", "densities", "redrawn", "scaled", "arch.inter_balance")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of conf/fidelity.yaml, which explains them."""

    studies: tuple[str, ...]
    layers: tuple[str, ...]
    path: str | None
    mask_kinds: tuple[str, ...]
    densities: tuple[float, ...]
    redrawn: tuple[float, ...]
    scaled: tuple[float, ...]
    size: int
    images: int
    draws: int
    seed: int
    density: float
    patterns: int
    blocks: int
    step: float


def read_settings(options: Mapping[str, Any]) -> Settings:
    """Returns validated settings.

    Args:
        options: The configuration as plain values.

    Raises:
        ValueError: An option is unknown or not valid.
    """
    check_names(options, ("arch", "tracking", *(field.name for field in dataclasses.fields(Settings))))
    path, size = options["path"], integer("size", options["size"], minimum=1)
    if path is not None and not isinstance(path, str):
        raise ValueError(f"path must be null or name an .npz file, got {path!r}.")
    if options["layers"] == [] and path is None:
        raise ValueError("layers must name at least one layer where path is null, got none.")

    return Settings(
        studies=each(options, "studies", lambda key, value: one_of(key, value, tuple(STUDIES))),
        layers=each(options, "layers", functools.partial(layer_name, size), least=0),
        path=path,
        mask_kinds=each(options, "mask_kinds", lambda key, value: one_of(key, value, KINDS)),
        densities=each(
            options,
            "densities",
            lambda key, value: number(key, value, "a number above 0, up to 1", lambda d: 0 < d <= 1),
        ),
        redrawn=each(
            options, "redrawn", lambda key, value: number(key, value, "a number from 0 to 1", lambda q: 0 <= q <= 1)
        ),
        scaled=each(
            options, "scaled", lambda key, value: number(key, value, "a positive number", lambda f: 0 < f < math.inf)
        ),
        size=size,
        images=integer("images", options["images"], minimum=1),
        draws=_count("draws", options["draws"], minimum=2),
        seed=check_seed(options["seed"]),
        density=number("density", options["density"], "a number above 0, below 1", lambda d: 0 < d < 1),
        patterns=_count("patterns", options["patterns"], minimum=3),
        blocks=_count("blocks", options["blocks"], minimum=2),
        step=number("step", options["step"], "a number above 0, below 0.5", lambda step: 0 < step < 0.5),
    )


def load_layers(settings: Settings) -> tuple[dict[str, dict[str, Layer]], Workload | None]:
    """Returns layers by name and by the kind of their activations, and the workload of `path`.

    Raises:
        ValueError: `path` names no file of masks.
    """
    layers: dict[str, dict[str, Layer]] = {}
    for name in settings.layers:
        network, _, layer = name.partition("/")
        for mask_kind in KINDS:
            drawn = SyntheticWorkload(
                NETWORKS[network](settings.size), seed=settings.seed, images=settings.images, mask_kind=mask_kind
            )
            layers.setdefault(name, {})[mask_kind] = dataclasses.replace(drawn[drawn.names.index(layer)], name=name)
    if settings.path is None:
        return layers, None
    read = read_npz(settings.path)
    for layer in read:
        renamed = dataclasses.replace(layer, name=f"masks/{layer.name}")
        layers[f"masks/{layer.name}"] = dict.fromkeys(KINDS, renamed)
    return layers, read


def plan(
    settings: Settings, layers: Mapping[str, Mapping[str, Layer]], arch: Phantom2D
) -> Iterator[tuple[Key, Callable[[], Case]]]:
    """Yields every case that is to be measured: its key, and what measures it."""
    weights = {"density": settings.density}
    variants: dict[str, list[dict[str, Any]]] = {
        "error": [
            {"mask_kind": mask_kind, "density": density}
            for mask_kind in settings.mask_kinds
            for density in settings.densities
        ],
        "rank": [weights | {"patterns": settings.patterns}],
        "gradient": [weights | {"blocks": settings.blocks, "step": settings.step}],
        "stale": [
            weights | {"drift": drift, "amount": amount}
            for drift in ("redrawn", "scaled")
            for amount in getattr(settings, drift)
        ],
    }
    for study in settings.studies:
        for name, by_kind in layers.items():
            for variant in variants[study]:
                for inter_balance in (False, True):
                    of = {"layer": name, "inter_balance": inter_balance, **variant}
                    measure = functools.partial(
                        _MEASURES[study],
                        by_kind[variant.get("mask_kind", "channel")],
                        dataclasses.replace(arch, inter_balance=inter_balance),
                        **variant,
                        draws=settings.draws,
                        seed=settings.seed,
                    )
                    yield (study, *(of[field] for field in STUDIES[study].identity)), measure


def describe(key: Key) -> str:
    """Returns what a progress bar says of a case."""
    study, *identity = key
    named_values = zip(STUDIES[study].identity, identity, strict=True)
    return f"{study}: {', '.join(f'{name} {value}' for name, value in named_values)}"


def resume(path: pathlib.Path, identity: Mapping[str, Any]) -> dict[Key, Case]:
    """Returns the cases that an earlier run left in a file, and leaves the file ready for more.

    Raises:
        ValueError: See `experiments.harness.cases.resume`.
    """
    cases = resume_cases(path, identity, _case)
    return {(case.study, *(getattr(case, field) for field in case.identity)): case for case in cases}


def to_dict(case: Case) -> dict[str, Any]:
    """Returns a case as plain values."""
    return {"study": case.study, **dataclasses.asdict(case)}


def architecture(arch: Phantom2D) -> dict[str, Any]:
    """Returns the parameters of the accelerator that cases have in common."""
    return {name: value for name, value in dataclasses.asdict(arch).items() if name != "inter_balance"}


def _case(record: dict[str, Any]) -> Case:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return STUDIES[values.pop("study")](**values)


def _count(key: str, value: Any, minimum: int) -> int:
    return int(number(key, value, f"an integer of at least {minimum}", lambda n: n >= minimum and n.is_integer()))
