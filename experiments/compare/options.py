"""The comparison command: its settings, the cases that they plan, and those that a run has kept."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.compare.cases import LayerCycles, MapPoint, NetworkRun
from experiments.compare.designs import PHANTOM, rivals, variants
from experiments.compare.measure import measure_point, run_design
from experiments.harness.cases import Key
from experiments.harness.cases import resume as resume_cases
from experiments.harness.options import check_names, each, group_of
from experiments.harness.workload import is_file, layer_name, load_file
from phantom_jax import Layer, Phantom2D
from phantom_jax.checks import check_seed, integer, number, one_of
from phantom_jax.workloads import KINDS, NETWORKS, FileWorkload, SyntheticWorkload, Workload

Case = NetworkRun | MapPoint

SIZES = ("published", "equal")
SELECTIONS = ("networks", "inputs", "mask_kinds", "seeds", "sizes", "map")  # options that say which cases there are
_OF_FILES = ("networks.", "inputs.")  # digests of files
_CASES: dict[str, type[Case]] = {"run": NetworkRun, "map": MapPoint}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of conf/compare.yaml, which explains them."""

    networks: tuple[str, ...]
    size: int
    mask_kinds: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: tuple[str, ...]
    map_layer: str
    map_densities: tuple[float, ...]
    files: Mapping[str, FileWorkload] = dataclasses.field(default_factory=dict)  # of `networks`


def read_settings(options: Mapping[str, Any]) -> Settings:
    """Returns validated settings.

    Args:
        options: The configuration as plain values.

    Raises:
        ValueError: An option is unknown or not valid.
    """
    of_map = group_of(options, "map") if "map" in options else {}
    options = {**options, **{f"map.{name}": value for name, value in of_map.items()}}
    options.pop("map", None)
    known = ("networks", "inputs", "size", "mask_kinds", "seeds", "sizes", "map.layer", "map.densities")
    check_names(options, ("arch", "tracking", *known))

    size = integer("size", options["size"], minimum=1)
    networks = each(options, "networks", functools.partial(_network, size))
    return Settings(
        networks=networks,
        size=size,
        mask_kinds=each(options, "mask_kinds", lambda key, value: one_of(key, value, KINDS)),
        seeds=each(options, "seeds", lambda key, value: check_seed(value, key)),
        sizes=each(options, "sizes", lambda key, value: one_of(key, value, SIZES)),
        map_layer=layer_name(size, "map.layer", options["map.layer"]),
        map_densities=each(
            options,
            "map.densities",
            lambda key, value: number(key, value, "a number above 0, up to 1", lambda density: 0 < density <= 1),
            least=0,
        ),
        files={
            network: load_file(f"networks[{index}]", network, options["inputs"])
            for index, network in enumerate(networks)
            if is_file(network)
        },
    )


def plan(settings: Settings, arch: Phantom2D) -> Iterator[tuple[Key, Callable[[], Case]]]:
    """Yields every case that is to be counted: its key, and what counts it."""
    load = functools.lru_cache(maxsize=1)(functools.partial(_load, settings))  # of cases that follow each other
    designs: list[tuple[str, str, Any]] = [(PHANTOM, "published", arch)]
    designs += [(name, size, design) for size in settings.sizes for name, design in rivals(arch, size).items()]
    designs += [(name, "published", design) for name, design in variants(arch).items() if name != PHANTOM]
    for of_masks in itertools.chain.from_iterable(_masks(settings, network) for network in settings.networks):
        for name, size, design in designs:
            of = dict(zip(("network", "mask_kind", "seed"), of_masks, strict=True)) | {"name": name, "size": size}
            yield (
                ("run", *of.values()),
                lambda of_masks=of_masks, design=design, of=of: run_design(load(*of_masks), design, **of),
            )
    network, _, layer = settings.map_layer.partition("/")
    for weights in settings.map_densities:
        for activations in settings.map_densities:
            of: dict[str, Any] = {
                "seed": settings.seeds[0],
                "weight_density": weights,
                "activation_density": activations,
            }
            yield (
                ("map", settings.map_layer, *of.values()),
                lambda of=of: measure_point(_map_layer(settings, network, layer, **of), arch, **of),
            )


def notes(settings: Settings) -> list[str]:
    """Returns what a user should know about the networks' densities and files."""
    workloads = [_load(settings, *next(_masks(settings, network))) for network in settings.networks]
    return list(dict.fromkeys(note for workload in workloads for note in workload.notes))


def resume(path: pathlib.Path, identity: Mapping[str, Any]) -> dict[Key, Case]:
    """Returns the cases that an earlier run left in a file, and leaves the file ready for more.

    Cases tell the contents of the network's files themselves, so other files do not matter.

    Raises:
        ValueError: See `experiments.harness.cases.resume`.
    """
    how = {name: value for name, value in identity.items() if not name.startswith(_OF_FILES)}
    cases = resume_cases(path, how, _case)
    return {(case.case, *(getattr(case, field) for field in case.identity)): case for case in cases}


def describe(key: Key) -> str:
    """Returns what the progress bar and messages call a case."""
    return ", ".join(str(part) for part in key[1:] if part is not None)


def to_dict(case: Case) -> dict[str, Any]:
    """Returns a case as plain values."""
    return {"case": case.case, **dataclasses.asdict(case)}


def _case(record: dict[str, Any]) -> Case:
    values = dict(record)
    kind = _CASES[values.pop("case")]
    if kind is NetworkRun:
        values["layers"] = tuple(LayerCycles(**layer) for layer in values["layers"])
    return kind(**values)


def _masks(settings: Settings, network: str) -> Iterator[tuple[str, str, int | None]]:
    """Yields a network with each kind and seed of its masks. A file's kind tells its contents, and it has no seed."""
    if network not in settings.files:
        yield from itertools.product([network], settings.mask_kinds, settings.seeds)
        return
    provenance = settings.files[network].provenance()
    digests = [provenance[name][:8] for name in ("sha256", "inputs_sha256") if name in provenance]
    yield network, " ".join(["file", *digests]), None


def _load(settings: Settings, network: str, mask_kind: str, seed: int | None) -> Workload:
    if network in settings.files:
        return settings.files[network]
    name, _, densities = network.partition("/")
    return SyntheticWorkload(NETWORKS[name](settings.size), seed=seed or 0, densities=densities, mask_kind=mask_kind)


def _map_layer(
    settings: Settings, network: str, layer: str, *, seed: int, weight_density: float, activation_density: float
) -> Layer:
    drawn = SyntheticWorkload(
        NETWORKS[network](settings.size),
        seed=seed,
        weight_density=weight_density,
        activation_density=activation_density,
    )
    return dataclasses.replace(drawn[drawn.names.index(layer)], name=settings.map_layer)


def _network(size: int, key: str, value: Any) -> str:
    if is_file(str(value)):
        return value
    name, _, densities = str(value).partition("/")
    if name not in NETWORKS:
        raise ValueError(
            f"{key} must be NETWORK/DENSITIES, of a network of {', '.join(NETWORKS)}, or an .npz or .onnx file; got "
            f"{value!r}."
        )
    one_of(f"{key}, after {name}/,", densities, tuple(NETWORKS[name](size).tables))
    return value
