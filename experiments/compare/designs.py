"""Which designs are compared, by name."""

import dataclasses

from phantom_jax.arch import Phantom2D
from phantom_jax.baselines import SCNN, Dense, Design, EyerissV2, SparTen

# What the paper states (arXiv:2111.05002, abstract): Phantom-2D's speed-up over each, on sparse VGG16 and MobileNet.
PAPER_RATIOS = {"dense": 12.0, "scnn": 4.1, "sparten": 1.98, "eyeriss_v2": 2.36}
PHANTOM = "phantom"  # the accelerator of the comparison; its variants are named after it
RIVALS = ("dense", "dense_mapped", "scnn", "sparten", "eyeriss_v2")


def rivals(arch: Phantom2D, size: str) -> dict[str, Design]:
    """Returns the rivals by name.

    Args:
        arch: Phantom-2D.
        size: `"published"`, or `"equal"` for as many multipliers as `arch` has. The dense arrays always have these.
    """
    wanted, is_equal = arch.multipliers, size == "equal"
    return {
        "dense": Dense(multipliers=wanted),
        "dense_mapped": Dense(arch=arch),
        "scnn": SCNN.scaled(wanted) if is_equal else SCNN(),
        "sparten": SparTen.scaled(wanted) if is_equal else SparTen(),
        "eyeriss_v2": EyerissV2.scaled(wanted) if is_equal else EyerissV2(),
    }


def variants(arch: Phantom2D) -> dict[str, Phantom2D]:
    """Returns the accelerator, and for the ablation the same with other lookaheads, selectors and balances.

    The lookaheads are those of the presets.
    """
    made = {PHANTOM: arch}
    for preset in ("cv", "md", "hp"):
        lookahead = Phantom2D.preset(f"phantom_{preset}").lookahead
        for selector in ("out_of_order", "in_order"):
            made[f"{PHANTOM}, {preset}, {selector}"] = dataclasses.replace(arch, lookahead=lookahead, selector=selector)
    for name, off in (
        ("no intra_balance", {"intra_balance": False}),
        ("no inter_balance", {"inter_balance": False}),
        ("no balance", {"intra_balance": False, "inter_balance": False}),
    ):
        made[f"{PHANTOM}, {name}"] = dataclasses.replace(arch, **off)
    return made
