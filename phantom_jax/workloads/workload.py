"""What every workload is: a sequence of layers that says where it comes from."""

import abc
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
