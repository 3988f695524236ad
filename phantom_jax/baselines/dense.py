"""Dense arrays that skip nothing: an ideally filled one, and a mesh of Phantom-2D's shape (SPEC 9)."""

import dataclasses
from collections.abc import Callable

from phantom_jax.arch import Phantom2D, check_arch
from phantom_jax.baselines.design import Count, Design
from phantom_jax.exact import choose_row_axis, streams
from phantom_jax.layer import Layer

_MULTIPLIERS = 252  # as many as the default Phantom-2D has


@dataclasses.dataclass(frozen=True)
class Dense(Design):
    """A dense array: *ideal* with `Dense(multipliers=252)`, the default, or *mapped* with `Dense(arch=arch)`.

    Both are this model's. Ideal, a layer takes ceil(MACs / multipliers) cycles. Mapped, it takes what a Phantom-2D mesh
    takes with its mapping if every lookahead mask lasts a cycle (SPEC 6). Every layer is supported.

    The stack: `effectual`; `ineffectual`, MACs with a zero operand, inserted zeros included; `idle`, slots without one.

    Attributes:
        multipliers: Multipliers of the ideal array, None where `arch` is given.
        arch: The accelerator that gives mesh and mapping, None for the ideal array.
        equal_multipliers: See `Design`.

    Raises:
        ValueError: A parameter is not valid, or both are given.
    """

    multipliers: int | None = None
    arch: Phantom2D | None = None

    def __post_init__(self) -> None:
        """Validates every parameter."""
        super().__post_init__()
        if self.arch is None:
            object.__setattr__(self, "multipliers", _MULTIPLIERS if self.multipliers is None else self.multipliers)
            self._check_integer("multipliers")
            return
        check_arch(self.arch)
        if self.multipliers is not None:
            raise ValueError(f"multipliers must be None where arch gives them, got {self.multipliers!r}.")

    @classmethod
    def scaled(cls, multipliers: int = 252) -> "Dense":
        """Returns the ideal array of `multipliers` multipliers."""
        return cls(multipliers=multipliers)

    @property
    def array_multipliers(self) -> int:
        """Multipliers of the array."""
        if self.arch is not None:
            return self.arch.multipliers
        assert self.multipliers is not None
        return self.multipliers

    def supports(self, layer: Layer) -> bool:
        """Whether the array runs such a layer: always."""
        return True

    def counter(self, layer: Layer) -> Callable[[int], Count]:
        """Returns what counts an image of a layer."""
        macs = layer.positions * layer.reduction * layer.filters
        if self.arch is None:
            cycles = -(-macs // self.array_multipliers)
        else:
            _, cycles = choose_row_axis(streams(layer, self.arch), self.arch)
        stack = {"ineffectual": macs, "idle": cycles * self.array_multipliers - macs}
        return lambda image: Count(cycles, stack, effectual_in="ineffectual")
