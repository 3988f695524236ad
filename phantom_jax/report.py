"""Results: exact integers per layer and image, ratios derived from them, tables (SPEC 6)."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64
from rich.console import Console
from rich.table import Table
from rich.text import Text

from phantom_jax.layer import Layer, nonzero
from phantom_jax.tables import new_table, print_tables, short

if TYPE_CHECKING:
    import pandas

Ratio = float | None  # None where the denominator is 0
_INT64_MAX = np.iinfo(np.int64).max


def divide(numerator: int, denominator: int) -> Ratio:
    """Returns the quotient of two exact integers, None where it has none."""
    return numerator / denominator if denominator else None


class _Ratios:
    """Ratios of a layer or a network over all of its images, as ratios of sums; None where they have no denominator."""

    cycles: Any
    effectual_macs: Any
    dense_cycles: Any
    ideal_dense_cycles: Any
    dense_macs: Any
    multipliers: Any
    stack: Any

    @property
    def speedup_over_mapped_dense(self) -> Ratio:
        """Speed-up over the same mesh and mapping without skipping."""
        return divide(self.dense_cycles * len(self.cycles), sum(self.cycles.tolist()))

    @property
    def speedup_over_ideal_dense(self) -> Ratio:
        """Speed-up over an ideally filled dense array of as many multipliers."""
        return divide(self.ideal_dense_cycles * len(self.cycles), sum(self.cycles.tolist()))

    @property
    def perfect_skipping_bound(self) -> Ratio:
        """What skipping every zero would give over an ideally filled dense array."""
        return divide(self.dense_macs * len(self.cycles), sum(self.effectual_macs.tolist()))

    @property
    def utilization(self) -> Ratio:
        """Share of thread slots with an effectual MAC."""
        return divide(sum(self.effectual_macs.tolist()), sum(self.cycles.tolist()) * self.multipliers)

    @property
    def shares(self) -> dict[str, Ratio]:
        """Share of thread slots that each component of the cycle stack has."""
        thread_slots = sum(self.cycles.tolist()) * self.multipliers
        return {component: divide(sum(counts.tolist()), thread_slots) for component, counts in self.stack.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class LayerReport(_Ratios):
    """What one layer takes. Cycles and MACs are exact; arrays have one entry per image."""

    name: str
    kind: str  # "conv" or "dense"
    weights_shape: tuple[int, ...]
    activations_shape: tuple[int, ...]  # without the batch axis
    output_shape: tuple[int, ...]  # positions per spatial axis
    weight_density: float
    activation_density: float  # over all images
    row_axis: str | None  # what the rows of the mesh share out: "jobs", "filters" or "segments"
    stream: str | None  # what a stream runs along: "positions" or "chunks"
    multipliers: int  # thread slots per cycle
    dense_cycles: int
    dense_macs: int
    cycles: Int64[np.ndarray, " batch"]
    effectual_macs: Int64[np.ndarray, " batch"]
    stack: Mapping[str, Int64[np.ndarray, " batch"]]  # thread slots; sums to cycles * multipliers
    supported: bool = True  # whether the published design runs such a layer; if not, the counts are this model's alone

    @classmethod
    def of(
        cls,
        layer: Layer,
        name: str,
        *,
        cycles: Sequence[int],
        stacks: Sequence[Mapping[str, int]],
        dense_cycles: int,
        multipliers: int,
        nonzero_weights: int,
        row_axis: str | None = None,
        stream: str | None = None,
        supported: bool = True,
    ) -> "LayerReport":
        """Makes the report of a layer from what each of its images takes.

        Args:
            layer: The layer.
            name: Its name in the report.
            cycles: Cycles of each image.
            stacks: Slots of each component of the cycle stack, for each image. The component `effectual` is the
                number of effectual MACs.
            dense_cycles: See the attributes, as for the arguments below.
            multipliers: Slots per cycle.
            nonzero_weights: Non-zero weights of the layer.
            row_axis: What the rows of the mesh share out, if there are any.
            stream: What a stream runs along, if there is any.
            supported: Whether the published design runs such a layer.

        Raises:
            ValueError: The slots of an image do not fit 64 bits.
        """
        _check_slots(max(cycles), multipliers, f"in layer {name}")
        activations = nonzero(layer.activations)
        stack = {component: np.array([each[component] for each in stacks], np.int64) for component in stacks[0]}
        return cls(
            name=name,
            kind="conv" if layer.is_conv else "dense",
            weights_shape=tuple(layer.weights.shape),
            activations_shape=tuple(layer.activations.shape[1:]),
            output_shape=layer.output_shape,
            weight_density=nonzero_weights / math.prod(layer.weights.shape),
            activation_density=int(np.count_nonzero(activations)) / activations.size,
            row_axis=row_axis,
            stream=stream,
            multipliers=multipliers,
            dense_cycles=dense_cycles,
            dense_macs=layer.positions * layer.reduction * layer.filters,
            cycles=np.array(cycles, np.int64),
            effectual_macs=stack["effectual"],
            stack=stack,
            supported=supported,
        )

    @property
    def ideal_dense_cycles(self) -> int:
        """Cycles of an ideally filled dense array with as many multipliers."""
        return -(-self.dense_macs // self.multipliers)

    def to_dict(self) -> dict[str, Any]:
        """Returns the layer as plain Python numbers, lists and strings."""
        return {
            "name": self.name,
            "kind": self.kind,
            "weights_shape": list(self.weights_shape),
            "activations_shape": list(self.activations_shape),
            "output_shape": list(self.output_shape),
            "weight_density": self.weight_density,
            "activation_density": self.activation_density,
            "row_axis": self.row_axis,
            "stream": self.stream,
            "supported": self.supported,
            **_numbers(self),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Report(_Ratios):
    """What a network takes: its layers, and their sums per image. Ratios over layers are ratios of sums."""

    layers: tuple[LayerReport, ...]
    architecture: Mapping[str, Any]  # parameters of the design that was simulated

    @classmethod
    def of(cls, layers: Iterable[LayerReport], architecture: Mapping[str, Any]) -> "Report":
        """Gathers the reports of a network's layers, as they come.

        Raises:
            ValueError: The slots of an image, summed over the layers so far, do not fit 64 bits.
        """
        gathered: list[LayerReport] = []
        cycles: list[int] = []  # of each image, exact
        for layer in layers:
            gathered.append(layer)
            of_layer = layer.cycles.tolist()
            cycles = [so_far + more for so_far, more in zip(cycles or [0] * len(of_layer), of_layer, strict=True)]
            _check_slots(max(cycles), layer.multipliers, f"up to layer {layer.name}")
        return cls(tuple(gathered), architecture)

    @property
    def multipliers(self) -> int:
        """Thread slots per cycle."""
        return self.layers[0].multipliers

    @property
    def cycles(self) -> Int64[np.ndarray, " batch"]:
        """Cycles per image, summed over layers."""
        return self._sum(lambda layer: layer.cycles)

    @property
    def effectual_macs(self) -> Int64[np.ndarray, " batch"]:
        """MACs of two non-zero operands per image, summed over layers."""
        return self._sum(lambda layer: layer.effectual_macs)

    @property
    def stack(self) -> dict[str, Int64[np.ndarray, " batch"]]:
        """Thread slots per component and image, summed over layers."""
        return {name: self._sum(lambda layer, name=name: layer.stack[name]) for name in self.layers[0].stack}

    @property
    def dense_cycles(self) -> int:
        """Cycles per image without skipping, on the same mesh with the same mapping, summed over layers."""
        return sum(layer.dense_cycles for layer in self.layers)

    @property
    def ideal_dense_cycles(self) -> int:
        """Cycles per image of an ideally filled dense array, summed over layers."""
        return sum(layer.ideal_dense_cycles for layer in self.layers)

    @property
    def dense_macs(self) -> int:
        """MACs per image, zeros included, summed over layers."""
        return sum(layer.dense_macs for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python numbers, lists and strings, ready for JSON."""
        return {
            "architecture": dict(self.architecture),
            "totals": _numbers(self),
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def rows(self) -> list[dict[str, Any]]:
        """Returns one flat row per layer and image, as plain values: for CSV files and data frames.

        Shapes are text; components of the cycle stack are columns `stack_NAME`, in thread slots.
        """
        return [
            {
                "layer": layer.name,
                "image": image,
                "kind": layer.kind,
                "shape": _shape_text(layer),
                "weight_density": layer.weight_density,
                "activation_density": layer.activation_density,
                "row_axis": layer.row_axis,
                "stream": layer.stream,
                "supported": layer.supported,
                **{key: value[image] if isinstance(value, list) else value for key, value in numbers.items()},
                **{f"stack_{component}": thread_slots[image] for component, thread_slots in stack.items()},
            }
            for layer in self.layers
            for numbers in [_numbers(layer)]
            for stack in [numbers.pop("stack")]
            for image in range(len(self.cycles))
        ]

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns `rows` as a data frame.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("Report.to_pandas needs pandas, which is not installed: pip install pandas") from error
        return pandas.DataFrame(self.rows())

    def tables(self) -> tuple[Table, Table]:
        """Returns two tables for `rich`: cycles per layer, and the cycle stack per layer.

        With several images, cycles are the mean per image, and ratios are ratios of sums over images.
        """
        return self._cycles_table(), self._stack_table()

    def print(self, console: Console | None = None) -> None:
        """Prints the tables in full width, also to a pipe or a narrow terminal, where rich would cut cells short."""
        print_tables(self.tables(), console)

    def _sum(self, of: Callable[[LayerReport], np.ndarray]) -> Int64[np.ndarray, " batch"]:
        return np.stack([of(layer) for layer in self.layers]).sum(axis=0)

    def _cycles_table(self) -> Table:
        images = len(self.cycles)
        table = new_table("Cycles" + (f", mean of {images} images" if images > 1 else ""))
        table.caption = (
            "w, a: density of weights and activations. dense: cycles of the same design without skipping. Speed-up "
            "over that (mapped) and over an ideally filled dense array of as many multipliers (ideal); bound: that of "
            "skipping every zero. util: slots with an effectual MAC."
        )
        for header in ("layer", "shape", "w", "a", "mapping"):
            table.add_column(header, no_wrap=True)
        for header in ("cycles", "dense", "mapped", "ideal", "bound", "util"):
            table.add_column(header, justify="right", no_wrap=True)
        for layer in self.layers:
            mapping = f"{layer.row_axis}, along {layer.stream}" if layer.row_axis else ""
            mapping += "" if layer.supported else "not supported"
            densities = f"{layer.weight_density:.2f}", f"{layer.activation_density:.2f}"
            table.add_row(_name_text(layer), _shape_text(layer), *densities, mapping, *_cells(layer))
        table.add_section()
        table.add_row("total", "", "", "", "", *_cells(self), style="bold")
        return table

    def _stack_table(self) -> Table:
        table = new_table("Cycle stack: where every thread slot went, in per cent")
        table.add_column("layer", no_wrap=True)
        for component in self.stack:
            table.add_column(component, justify="right", no_wrap=True)
        for layer in self.layers:
            table.add_row(_name_text(layer), *_shares(layer))
        table.add_section()
        table.add_row("total", *_shares(self), style="bold")
        return table


def _check_slots(cycles: int, multipliers: int, where: str) -> None:
    if cycles * multipliers > _INT64_MAX:
        raise ValueError(
            f"{cycles} cycles of {multipliers} multipliers, {where}, are more slots than 64 bits hold; a smaller array "
            "has fewer."
        )


def _numbers(of: LayerReport | Report) -> dict[str, Any]:
    """Returns the integers and the ratios that a layer and a network have in common."""
    cycles, effectual = of.cycles.tolist(), of.effectual_macs.tolist()
    return {
        "cycles": cycles,
        "dense_cycles": of.dense_cycles,
        "ideal_dense_cycles": of.ideal_dense_cycles,
        "dense_macs": of.dense_macs,
        "effectual_macs": effectual,
        "speedup_over_mapped_dense": [divide(of.dense_cycles, count) for count in cycles],
        "speedup_over_ideal_dense": [divide(of.ideal_dense_cycles, count) for count in cycles],
        "perfect_skipping_bound": [divide(of.dense_macs, macs) for macs in effectual],
        "utilization": [divide(macs, count * of.multipliers) for macs, count in zip(effectual, cycles, strict=True)],
        "stack": {component: thread_slots.tolist() for component, thread_slots in of.stack.items()},
    }


def _cells(of: LayerReport | Report) -> Sequence[str]:
    return (
        f"{sum(of.cycles.tolist()) / len(of.cycles):,.0f}",
        f"{of.dense_cycles:,}",
        _ratio_text(of.speedup_over_mapped_dense, "{:.2f}x"),
        _ratio_text(of.speedup_over_ideal_dense, "{:.2f}x"),
        _ratio_text(of.perfect_skipping_bound, "{:.2f}x"),
        _ratio_text(of.utilization, "{:.1%}"),
    )


def _shares(of: LayerReport | Report) -> list[str]:
    return [_ratio_text(None if share is None else 100 * share, "{:.1f}") for share in of.shares.values()]


def _ratio_text(ratio: Ratio, pattern: str) -> str:
    return "-" if ratio is None else pattern.format(ratio)


def _name_text(layer: LayerReport) -> Text:
    """Returns a name with its brackets, which rich would read as markup."""
    return Text(short(layer.name))


def _shape_text(layer: LayerReport) -> str:
    """Returns, for example, `3x3 64>128 @112x112`: kernel, channels to filters, output positions."""
    *kernel, _, filters = layer.weights_shape
    at = f" @{'x'.join(map(str, layer.output_shape))}" if layer.output_shape else ""
    return f"{'x'.join(map(str, kernel))} {layer.activations_shape[-1]}>{filters}{at}".strip()
