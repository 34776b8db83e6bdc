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
        return self._each(lambda values: values[images])

    def to(self: D, device: torch.device | str) -> D:
        """The same there; on a GPU without waiting."""
        gpu = torch.device(device).type == "cuda"
        return self._each(lambda values: values.to(device, non_blocking=gpu))

    def pin_memory(self: D) -> D:
        """The same where a GPU fetches it from without waiting."""
        return self._each(Tensor.pin_memory)

    def copy_(self: D, other: D) -> None:
        """Take the values of ``other``, without waiting where its memory is pinned."""
        for name, values in self._tensors().items():
            values.copy_(getattr(other, name), non_blocking=True)

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def _each(self: D, function: Callable[[Tensor], Tensor]) -> D:
        return replace(self, **{name: function(v) for name, v in self._tensors().items()})
