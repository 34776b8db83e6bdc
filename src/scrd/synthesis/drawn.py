"""What was drawn for a batch: tensors that go together from the host to a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

D = TypeVar("D", bound="Drawn")


@dataclass(frozen=True)
class Drawn:
    """Drawn parameters; every tensor among the fields has a row an image."""

    def __getitem__(self: D, images: Tensor | slice) -> D:
        """Those of some of the images."""
        return self.each(lambda values: values[images])

    def to(self: D, device: torch.device | str) -> D:
        """The same there; on a GPU without waiting."""
        gpu = torch.device(device).type == "cuda"
        return self.each(lambda values: values.to(device, non_blocking=gpu))

    def copy_(self: D, other: D) -> None:
        """Take the values of ``other``."""
        for name, values in self.tensors().items():
            values.copy_(getattr(other, name))

    def tensors(self) -> dict[str, Tensor]:
        """By name, in the order of the fields."""
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def each(self: D, function: Callable[[Tensor], Tensor]) -> D:
        """The same with a function of each tensor in its place, in the order of the fields."""
        return replace(self, **{name: function(v) for name, v in self.tensors().items()})
