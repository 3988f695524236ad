"""What every workload is: a sequence of layers that says where it comes from."""

import abc
import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

from phantom_jax.layer import Layer


class Workload(Sequence[Layer]):
    """A named sequence of layers. Layers may be made on demand, so iterate once rather than index often."""

    name: str
    names: Sequence[str]  # of the layers, known without making any
    seed: Any  # an int that its masks are drawn from, None where they are not drawn
    notes: tuple[str, ...]  # what a user should know about how it was read

    @abc.abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Returns where the masks come from, as plain values for a results file."""


@dataclasses.dataclass(frozen=True, eq=False)
class FileWorkload(Workload):
    """The layers of a file, read and validated."""

    name: str
    path: pathlib.Path
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    inputs: pathlib.Path | None = None  # the file of what the network was run on, where the masks come from a run
    seed: None = None

    @property
    def names(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Names of the layers."""
        return [str(layer.name) for layer in self.layers]

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Layer:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        return self.layers[index]

    def provenance(self) -> dict[str, Any]:
        """Returns the files that the masks come from."""
        found = {"name": self.name, "path": str(self.path), "sha256": _sha256(self.path)}
        if self.inputs is not None:
            found |= {"inputs": str(self.inputs), "inputs_sha256": _sha256(self.inputs)}
        return {**found, "images": self.layers[0].batch}


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
