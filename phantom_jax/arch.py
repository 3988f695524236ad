"""The accelerator's parameters: a mesh of cores, each with PEs of multiplier threads (SPEC 1)."""

import dataclasses

from phantom_jax.checks import boolean, integer, one_of

SELECTORS = ("in_order", "out_of_order")
_PRESET_LOOKAHEAD = {"phantom_cv": 9, "phantom_md": 18, "phantom_hp": 27}
_SIZES = ("rows", "cols", "pes", "threads", "lookahead")
_SWITCHES = ("intra_balance", "inter_balance")


@dataclasses.dataclass(frozen=True)
class Phantom2D:
    """A Phantom-2D accelerator. Frozen and hashable; the defaults are the preset `phantom_hp`.

    The paper (arXiv:2111.05002) states lookahead in masks, dynamic thread scheduling, a two-dimensional mesh and two
    levels of load balancing. Every number and rule below is this model's reconstruction of them.

    Attributes:
        rows: Rows of cores in the mesh, R.
        cols: Columns of cores in the mesh, C.
        pes: Processing elements per core, P.
        threads: Multiplier threads per PE, T.
        lookahead: Lookahead masks per block, L.
        selector: Top-down selector, `"in_order"` or `"out_of_order"`.
        intra_balance: Level 1, rotate mask columns over the PEs of a core.
        inter_balance: Level 2, order filters and place jobs on the mesh by density.

    Raises:
        ValueError: A size is not a positive integer (below 2^31), a switch is not a bool, or the selector is unknown.
    """

    rows: int = 7
    cols: int = 4
    pes: int = 3
    threads: int = 3
    lookahead: int = 27
    selector: str = "out_of_order"
    intra_balance: bool = True
    inter_balance: bool = True

    def __post_init__(self) -> None:
        """Validates every parameter and turns NumPy scalars into plain Python ones."""
        for name in _SIZES:
            object.__setattr__(self, name, integer(name, getattr(self, name), minimum=1))
        for name in _SWITCHES:
            object.__setattr__(self, name, boolean(name, getattr(self, name)))
        one_of("selector", self.selector, SELECTORS)

    @classmethod
    def preset(cls, name: str) -> "Phantom2D":
        """Returns a named configuration of the model: `phantom_cv`, `phantom_md` or `phantom_hp` (L = 9, 18, 27).

        Args:
            name: The preset.

        Raises:
            ValueError: There is no such preset.
        """
        return cls(lookahead=_PRESET_LOOKAHEAD[one_of("preset", name, tuple(_PRESET_LOOKAHEAD))])

    @property
    def cores(self) -> int:
        """Cores of the mesh, R * C."""
        return self.rows * self.cols

    @property
    def slots(self) -> int:
        """Multiplier slots of a core, S = P * T; also the length of a chunk of the reduction axis."""
        return self.pes * self.threads

    @property
    def multipliers(self) -> int:
        """Multipliers of the mesh, R * C * S: the thread slots that every cycle offers."""
        return self.cores * self.slots


def check_arch(arch: Phantom2D) -> None:
    """Checks the accelerator that `simulate` and its like are given.

    Raises:
        ValueError: It is not a `Phantom2D`.
    """
    if not isinstance(arch, Phantom2D):
        raise ValueError(f"arch must be a Phantom2D, got {arch!r}.")
