"""What results, cases and checkpoints depend on: the one place that says whether a run may resume from them."""

import json
from collections.abc import Collection, Mapping
from typing import Any

_ABSENT = "(absent)"
_NEVER_MATTER = ("tracking", "resume")


def identity(provenance: Mapping[str, Any], may_differ: Collection[str] = ()) -> dict[str, Any]:
    """Returns what results depend on: options by their full names, contents of files, the version.

    Args:
        provenance: See `experiments.harness.provenance`.
        may_differ: Options that they do not depend on: names of options, of groups, or full names in groups.
    """
    version = {"phantom_jax": provenance["versions"]["phantom_jax"]}
    return {**of_options(provenance["settings"], may_differ), **provenance["inputs"], **version}


def of_options(options: Mapping[str, Any], may_differ: Collection[str] = ()) -> dict[str, Any]:
    """Returns the options' part of an identity.

    Args:
        options: All options of a command, as plain values.
        may_differ: See `identity`.
    """
    free = {*_NEVER_MATTER, *may_differ}
    flat = {name: value for name, value in _flat(options).items() if not free & {name, name.partition(".")[0]}}
    return json.loads(json.dumps(flat))


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what differs between two identities, each as a text."""
    return [
        f"{name} {then.get(name, _ABSENT)}, now {now.get(name, _ABSENT)}"
        for name in {**then, **now}
        if then.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns the values of nested groups by their full names."""
    found = {}
    for name, value in values.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found
