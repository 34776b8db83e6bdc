"""Scores batches that come from the host: on a GPU by a captured graph, two at a time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

from scrd.model import SCRD
from scrd.model.scores import Inference, Scores, infer
from scrd.system.capture import captured, capturing

T = TypeVar("T")

SLOTS = 2
"""Batches on a device at the same time: one is copied while the other is computed."""

TOLERANCE = 1e-3
"""Largest difference between captured and eager results, in units of their range."""


class Runner:
    """Runs a trained model; may be called by several threads at once.

    On a CUDA device everything from pixels to statistics is one graph, captured for the size of the
    first batch; smaller ones are filled up, and for a larger one another graph is captured, of
    twice the size at least, so that a service whose batches grow one by one does not stop for each.
    The batch that it is captured for is also run eagerly, and where the two disagree, or nothing
    can be captured, all is run eagerly, which a warning says once.

    Args:
        model: in eval mode, on its device; it must stay as it is.
        more: further devices, each of which gets a copy of it.
        fixed: whether to work on tensors that stay in place. By default where that can be captured.

    Attributes:
        together: batches that it works on at the same time.
    """

    def __init__(
        self, model: SCRD, more: Sequence[torch.device] = (), *, fixed: bool | None = None
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.fixed = self.device.type == "cuda" if fixed is None else fixed
        self.together = SLOTS * (1 + len(more)) if self.fixed else 1
        models = [model, *(copy.deepcopy(model).to(device) for device in more)]
        self._slots: SimpleQueue[tuple[SCRD, _Slot | None]] = SimpleQueue()
        for place in range(self.together):
            self._slots.put((models[place % len(models)], None))

    def __call__(self, images: Tensor, content: Tensor, *, maps: bool = True) -> Inference:
        """Score a batch.

        Args:
            images: (B, C, S, S), float32, C = 1 or 3, on the CPU.
            content: (B, S, S), bool, on the CPU.
            maps: whether the anomaly maps are wanted.

        Returns:
            Everything on the CPU; ``maps`` (0, S, S) where they are not wanted.
        """
        if not self.fixed:
            found = infer(self.model, images, content)
            return found if maps else found._replace(maps=found.maps[:0])
        model, slot = self._slots.get()
        try:
            if slot is None or not slot.takes(images):
                room = len(images)
                if slot is not None and room > len(slot.images):
                    room = max(room, 2 * len(slot.images))
                slot = self._new_slot(model, images, content, room)
            if slot is None:
                return self(images, content, maps=maps)
            return slot.run(images, content, maps)
        finally:
            self._slots.put((model, slot))

    def _new_slot(self, model: SCRD, images: Tensor, content: Tensor, room: int) -> _Slot | None:
        try:
            with capturing:
                slot = _Slot(model, (room, *images.shape[1:]), next(model.parameters()).device)
                expected = infer(self.model, images, content)
            difference = _difference(slot.run(images, content, True), expected)
            if difference <= TOLERANCE:
                return slot
            reason = f"its results differ by {difference:.1%} of their range"
        except RuntimeError as e:
            reason = str(e).strip().split("\n")[0]
        self.fixed = False
        warnings.warn(f"scoring without a CUDA graph, which is slower: {reason}", stacklevel=4)
        return None


class _Slot:
    """Tensors that stay in place on host and device, and the graph that works on them."""

    def __init__(self, model: SCRD, shape: Sequence[int], device: torch.device) -> None:
        self.device = device
        self.stream = _stream(device)
        pinned = device.type == "cuda"
        count, _, side, _ = shape
        self.host = (
            torch.empty(*shape, pin_memory=pinned),
            torch.empty(count, side, side, dtype=torch.bool, pin_memory=pinned),
        )
        self.images = torch.zeros(*shape, device=device).contiguous(
            memory_format=torch.channels_last
        )
        self.content = torch.ones(count, side, side, dtype=torch.bool, device=device)
        scores = Scores(model)
        with torch.inference_mode():
            first = scores(self.images, self.content)
        self.names = tuple(first.statistics)
        self.scales = first.scale_weights.shape[1]
        maps, numbers = first.maps.shape, _side_by_side(first).shape
        self.maps, self.numbers = (torch.empty(s, device=device) for s in (maps, numbers))
        self.told = tuple(torch.empty(s, pin_memory=pinned) for s in (maps, numbers))

        def work() -> None:
            with torch.inference_mode():
                found = scores(self.images, self.content)
                self.maps.copy_(found.maps)
                self.numbers.copy_(_side_by_side(found))

        if self.stream is not None:
            torch.cuda.synchronize(device)  # the tensors come from another stream
        self.replay = self._on_stream(lambda: captured(work, device))()

    def takes(self, images: Tensor) -> bool:
        """Whether a batch fits."""
        return len(images) <= len(self.images) and images.shape[1:] == self.images.shape[1:]

    def run(self, images: Tensor, content: Tensor, maps: bool) -> Inference:
        return self._on_stream(self._run)(images, content, maps)

    def _run(self, images: Tensor, content: Tensor, maps: bool) -> Inference:
        count = len(images)
        for host, one in zip(self.host, (images, content), strict=True):
            host[:count].copy_(one)
        self.images[:count].copy_(self.host[0][:count], non_blocking=True)
        self.content[:count].copy_(self.host[1][:count], non_blocking=True)
        self.replay()
        self.told[1].copy_(self.numbers, non_blocking=True)
        if maps:
            self.told[0][:count].copy_(self.maps[:count], non_blocking=True)
        if self.stream is not None:
            self.stream.synchronize()
        # copies: the slot is somebody else's at once
        numbers = self.told[1][:count].clone()
        k, n = self.scales, len(self.names)
        return Inference(
            self.told[0][: count if maps else 0].clone(),
            numbers[:, :k],
            {name: numbers[:, k + i] for i, name in enumerate(self.names)},
            numbers[:, k + n :] if numbers.shape[1] > k + n else None,
        )

    def _on_stream(self, function: Callable[..., T]) -> Callable[..., T]:
        def there(*arguments: object) -> T:
            with torch.cuda.stream(self.stream):  # nothing without one
                return function(*arguments)

        return there


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _side_by_side(found: Inference) -> Tensor:
    """Scale weights, statistics and excess of a batch, (B, K + ...), float32: one copy, not ten."""
    columns = [found.scale_weights, *(s[:, None] for s in found.statistics.values())]
    if found.excess is not None:
        columns.append(found.excess)
    return torch.cat([c.float() for c in columns], dim=1)


def _difference(a: Inference, b: Inference) -> float:
    """Largest difference of maps and statistics, in units of the range of those of ``b``."""
    pairs = [(a.maps, b.maps), *((a.statistics[n], s) for n, s in b.statistics.items())]
    wide = float(b.maps.max() - b.maps.min()) or 1.0
    return max(float((x - y).abs().max()) / wide for x, y in pairs)
