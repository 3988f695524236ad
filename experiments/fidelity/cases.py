"""What is measured of the proxy: one frozen dataclass per study, of plain values alone.

Cycles are per image: exact ones are means over drawn weight masks and over the images of the layer. What has no value,
such as an error relative to no cycles, is None.
"""

import dataclasses
from typing import ClassVar


@dataclasses.dataclass(frozen=True)
class ErrorCase:
    """Error of the proxy at one mean density."""

    study: ClassVar[str] = "error"
    identity: ClassVar[tuple[str, ...]] = ("layer", "mask_kind", "density", "inter_balance")

    layer: str
    mask_kind: str  # of the weight probabilities: "iid" or "channel"
    density: float  # mean weight probability
    inter_balance: bool
    proxy: float
    exact: float
    standard_error: float | None  # of the exact mean, relative to it
    error: float | None  # proxy / exact - 1


@dataclasses.dataclass(frozen=True)
class RankCase:
    """Ranks of weight patterns of equal mean density. Correlations are Spearman's."""

    study: ClassVar[str] = "rank"
    identity: ClassVar[tuple[str, ...]] = ("layer", "inter_balance")

    layer: str
    inter_balance: bool
    proxy: tuple[float, ...]  # by pattern
    exact: tuple[float, ...]
    standard_errors: tuple[float, ...]  # of the exact means, in cycles
    correlation: float | None  # of the proxy and the exact means
    halves: float | None  # of the exact means over two independent halves of the draws
    spread: float | None  # standard deviation of the exact means over their mean standard error


@dataclasses.dataclass(frozen=True)
class GradientCase:
    """Slopes along blocks of weights: the proxy's, and finite differences of the exact mean.

    Nearly all slopes have one sign, so cosines are high by themselves. The centered ones, of slopes less their mean,
    say whether the proxy distinguishes blocks.
    """

    study: ClassVar[str] = "gradient"
    identity: ClassVar[tuple[str, ...]] = ("layer", "inter_balance")

    layer: str
    inter_balance: bool
    proxy: tuple[float, ...]  # by block, cycles per unit of all its probabilities
    exact: tuple[float, ...]
    cosine: float | None  # of the proxy's slopes and the exact ones
    halves: float | None  # of the exact slopes over two independent halves of the draws
    centered: float | None
    centered_halves: float | None


@dataclasses.dataclass(frozen=True)
class StaleCase:
    """Error of a calibration whose activations have changed since."""

    study: ClassVar[str] = "stale"
    identity: ClassVar[tuple[str, ...]] = ("layer", "inter_balance", "drift", "amount")

    layer: str
    inter_balance: bool
    drift: str  # "redrawn" or "scaled"
    amount: float  # share of the bits redrawn, or factor of the density
    activation_density: float  # after the drift
    stale: float  # expected cycles by the old calibration
    fresh: float  # by a new one
    exact: float  # after the drift
    standard_error: float | None  # of the exact mean, relative to it
    stale_error: float | None  # stale / exact - 1
    fresh_error: float | None


Case = ErrorCase | RankCase | GradientCase | StaleCase
STUDIES: dict[str, type[Case]] = {case.study: case for case in (ErrorCase, RankCase, GradientCase, StaleCase)}
