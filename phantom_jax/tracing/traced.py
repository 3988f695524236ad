"""What is found in a network: layers, where their weights come from, and what makes no layer."""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, overload

import jax.numpy as jnp
import numpy as np

from phantom_jax.layer import Layer

KeyPath = tuple[Any, ...]  # as in `jax.tree_util`
_MOST_LISTED = 8  # of what is skipped, in the warning


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A contraction that makes no layer."""

    primitive: str  # what it is called in JAX or ONNX
    name: str
    shapes: tuple[tuple[int, ...], ...]  # of its operands; empty where they are not known
    reason: str

    def __str__(self) -> str:
        shapes = f" of {' and '.join(map(str, self.shapes))}" if self.shapes else ""
        return f"{self.name} ({self.primitive}{shapes}): {self.reason}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Traced(Sequence[Layer]):
    """The layers of a network in the order in which they ran; a sequence, so what takes layers takes it.

    Attributes:
        layers: The layers, with boolean masks and names that are unique.
        sources: Where each layer's weights come from: the key path of one array among the inputs, or None. `trace` and
            `from_onnx` say which inputs.
        skipped: What else contracts, in order, with the reason why it makes no layer.
        outputs: What the network returned.
    """

    layers: tuple[Layer, ...]
    sources: tuple[KeyPath | None, ...]
    skipped: tuple[Skipped, ...]
    outputs: Any

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Layer, ...]: ...
    def __getitem__(self, index: int | slice) -> Layer | tuple[Layer, ...]:
        return self.layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __repr__(self) -> str:
        names = ", ".join(str(layer.name) for layer in self.layers)
        return f"Traced({len(self.layers)} layers: {names}; {len(self.skipped)} skipped)"


class Findings:
    """Gathers layers, and what is skipped, while a network runs."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._sources: list[KeyPath | None] = []
        self._skipped: list[Skipped] = []
        self._guessed: list[str] = []
        self._names: set[str] = set()
        self._uses: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """Returns a name that no one has yet: the second of its name is `name#2`."""
        candidate = name
        while candidate in self._names:
            self._uses[name] = self._uses.get(name, 1) + 1
            candidate = f"{name}#{self._uses[name]}"
        self._names.add(candidate)
        return candidate

    def add(self, layer: Layer, source: KeyPath | None, is_guess: bool) -> None:
        """Takes a layer, the key path of its weights, and whether it is a guess which axis holds its images."""
        self._layers.append(layer)
        self._sources.append(source)
        if is_guess and not layer.is_conv and layer.activations.ndim > 2:
            self._guessed.append(str(layer.name))

    def skip(self, primitive: str, name: str, shapes: Sequence[Sequence[int]], reason: str) -> None:
        """Takes what makes no layer."""
        self._skipped.append(Skipped(primitive, name, tuple(map(tuple, shapes)), reason))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What is skipped so far."""
        return tuple(self._skipped)

    def traced(self, outputs: Any) -> Traced:
        """Returns what was found; warns of what was skipped or guessed, in the name of who called the caller."""
        if self._guessed:
            warnings.warn(
                f"images are taken along the first axis of what {', '.join(self._guessed)} read, for their axis could "
                "not be followed; batch says where they are.",
                stacklevel=3,
            )
        if self._skipped:
            listed = [f"\n  {skipped}" for skipped in self._skipped[:_MOST_LISTED]]
            rest = len(self._skipped) - len(listed)
            more = f"\n  and {rest} more, see .skipped" if rest else ""
            warnings.warn(f"what makes no layer is left out:{''.join(listed)}{more}", stacklevel=3)
        return Traced(tuple(self._layers), tuple(self._sources), self.skipped, outputs)


def to_mask(operand: str, values: Any) -> np.ndarray:
    """Returns the boolean mask of an operand's values; `operand` is what messages call it.

    Raises:
        ValueError: They hold NaN.
    """
    array = np.asarray(values)
    if jnp.issubdtype(array.dtype, jnp.inexact):
        missing = int(np.count_nonzero(np.isnan(array)))
        if missing:
            raise ValueError(f"{operand}, of shape {array.shape}, must not hold NaN, got {missing} of them.")
    return array != 0
