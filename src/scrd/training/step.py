"""One training step: what is drawn for it, and what is done with it."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.objectives import StepFeatures
from scrd.synthesis.drawn import Drawn
from scrd.synthesis.lesions import Lesions, apply_lesions, sample_lesions
from scrd.synthesis.perturbation import Perturbation, apply_perturbation, sample_perturbation
from scrd.system.capture import captured
from scrd.training.batches import batch_indices, generator_of
from scrd.training.checkpoint import trainable_state
from scrd.training.setup import Run, learning_rate
from scrd.training.teacher_features import with_some_changed

_ALIGNED = 16  # bytes
_AHEAD = 8
"""Threads that draw steps ahead of a GPU, which may take a tenth of the time of one; and steps."""


class Inputs(NamedTuple):
    """What a step works on, all of it this process's part of the batch.

    Attributes:
        own: (B,), int64, places in the set.
        image: x, (B, C, S, S), float32; None where nothing needs the images or they lie on the
            device.
        drawn: of the noise, or of the lesions of every second image of the whole batch; None for
            an objective that is not contrastive.
        piece: (n,), uint8, the memory in which all of them lie, see :func:`in_one_piece`.
    """

    own: Tensor
    image: Tensor | None
    drawn: Drawn | None
    piece: Tensor | None = None


def inputs_of(run: Run, number: int) -> Inputs:
    """Draw a step, on the CPU; depends on the seed and the number alone."""
    config, objective = run.config, run.objective
    own = batch_indices(number, config.batch_size, len(run.images), config.seed)[run.share]
    drawn: Drawn | None = None
    if objective.contrastive:
        # drawn for the batch of all processes, so that an image's does not depend on their number
        generator = generator_of(config.seed, 2, number)
        if objective.lesions:
            chosen = torch.arange(config.batch_size)[run.share]
            drawn = sample_lesions(config.batch_size, generator)[chosen[chosen % 2 == 0]]
        else:
            size = (run.images.shape[2], run.images.shape[3])
            # what is fixed for the run must not depend on the number
            fields = generator_of(config.seed, 5) if config.noise.field == "fixed" else generator
            drawn = sample_perturbation(config.batch_size, size, config.noise, generator, fields)
            drawn = drawn[run.share]
    needed = run.cache is None or objective.contrastive
    image = run.images[own] if needed and run.on_device is None else None
    inputs = Inputs(own, image, drawn)
    return in_one_piece(inputs, pinned=True) if run.fabric.device.type == "cuda" else inputs


def in_one_piece(inputs: Inputs, *, pinned: bool) -> Inputs:
    """The same in one piece of memory: one copy to a GPU instead of one for each tensor.

    Args:
        inputs: on the CPU.
        pinned: whether in memory that a GPU fetches from without waiting.
    """
    drawn = inputs.drawn.tensors().values() if inputs.drawn is not None else ()
    tensors = [t for t in (inputs.own, inputs.image, *drawn) if t is not None]
    piece = torch.empty(sum(map(_room, tensors)), dtype=torch.uint8, pin_memory=pinned)
    placed = _laid_out(inputs, piece)
    placed.own.copy_(inputs.own)
    if placed.image is not None and inputs.image is not None:
        placed.image.copy_(inputs.image)
    if placed.drawn is not None and inputs.drawn is not None:
        placed.drawn.copy_(inputs.drawn)
    return placed


def _room(tensor: Tensor) -> int:
    """Bytes that it takes, so that the next one can begin there."""
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED


def _laid_out(like: Inputs, piece: Tensor) -> Inputs:
    """Inputs of the same shapes that lie in a piece of memory."""
    at = 0

    def view(tensor: Tensor) -> Tensor:
        nonlocal at
        part = piece[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        at += _room(tensor)
        return part

    own = view(like.own)
    image = view(like.image) if like.image is not None else None
    return Inputs(own, image, like.drawn.each(view) if like.drawn is not None else None, piece)


def moved(inputs: Inputs, device: torch.device) -> Inputs:
    """The same there."""
    own, image, drawn, _ = inputs
    if image is not None:
        image = image.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    drawn = drawn.to(device) if drawn is not None else None
    return Inputs(own.to(device, non_blocking=True), image, drawn)


def compute(run: Run, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """One iteration of the paper's Algorithm 2, for any objective.

    The noisy path has no part in bottleneck and student, whose BatchNorm only ever sees normal
    batches, unless ``config.noisy_statistics`` says otherwise.

    Args:
        run: network, optimiser, images.
        inputs: on the device.

    Returns:
        The loss, a scalar, and the scale weights α, (B, K), of the batch before the step.
    """
    objective = run.objective
    own, image, drawn, _ = inputs
    with torch.no_grad():
        if image is None and run.on_device is not None:
            image = run.on_device[own].contiguous(memory_format=torch.channels_last)
        changed = where = at = None
        if isinstance(drawn, Lesions):
            assert image is not None
            at = torch.arange(len(own), device=own.device)[run.share.start % 2 :: 2]
            changed, seen = apply_lesions(image[at], drawn)
            where = torch.zeros_like(image[:, :1]).index_copy(0, at, seen)
        elif isinstance(drawn, Perturbation):
            assert image is not None
            rgb = image.expand(-1, 3, -1, -1)
            changed, where = apply_perturbation(rgb, drawn, run.config.noise)
        # u = T(x) and z = T(x + λ noise), or with lesions: of one batch, which is faster than two
        given: list[Tensor] = []
        if run.cache is None:
            assert image is not None
            given.append(image.expand(-1, 3, -1, -1))
        if changed is not None:
            given.append(changed.expand(-1, 3, -1, -1))
        with run.fabric.autocast():
            encoded: list[Tensor] = []
            if given:
                both = torch.cat(given).contiguous(memory_format=torch.channels_last)
                encoded = list(run.model.encode(both))
            if run.cache is not None:
                clean = [f[own].contiguous(memory_format=torch.channels_last) for f in run.cache]
            else:
                clean = [f[: len(own)] for f in encoded]
            noisy: list[Tensor] = []
            if changed is not None:
                noisy = [f[-len(changed) :] for f in encoded]
                if at is not None:
                    noisy = with_some_changed(clean, noisy, at)
    with run.fabric.autocast():  # Fabric itself sees to it for `forward` alone
        # embedding = bottleneck(u), v = student(embedding), α = scale head(embedding)
        student, scale_weights, logits = run.network.reconstruct(clean, noisy)
        if run.config.noisy_statistics:
            with torch.no_grad():
                run.model.reconstruct(noisy)
    # cosines of long vectors need fp32, whatever the precision of the network
    clean, student, noisy = ([f.float() for f in fs] for fs in (clean, student, noisy))
    features = StepFeatures(clean, student, noisy, scale_weights.float())
    if logits is None:
        features = replace(features, footprint=where)
    else:
        assert where is not None
        covered = F.adaptive_avg_pool2d(where, logits.shape[-1]).squeeze(1)
        features = replace(features, lesion_logits=logits.float(), lesions=covered)
    assert objective.function is not None
    loss = objective.function(features).mean()  # L(u, v, z, α), a value a sample or the batch
    if run.fabric.world_size > 1:  # DDP wants a gradient of every parameter, if only zero
        loss = loss + 0 * scale_weights.sum()
    run.optimizer.zero_grad(set_to_none=True)
    run.fabric.backward(loss)
    run.optimizer.step()
    return loss.detach(), scale_weights.detach()


class Steps:
    """Takes the steps of a run; on a GPU of its own by one captured graph.

    There what is drawn lies ready before the step, and nothing waits for the device. Where the
    step cannot be captured it is taken as it is, which a warning says.

    Args:
        run: that is set up.
        fixed: whether to work on tensors that stay in place. By default where the run asks for
            that, see :attr:`scrd.training.setup.Run.capturable`.
    """

    def __init__(self, run: Run, *, fixed: bool | None = None) -> None:
        self.run = run
        self._fixed: _Fixed | None = None
        if run.capturable if fixed is None else fixed:
            try:
                self._fixed = _Fixed(run)
            except RuntimeError as e:
                reason = str(e).strip().split("\n")[0]
                warnings.warn(
                    f"training without a CUDA graph, which is slower: {reason}", stacklevel=2
                )

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, loss and scale weights of each step, after it was taken."""
        run = self.run
        with self._drawn() as ahead:
            for number, inputs in ahead:
                run.set_rate(learning_rate(number, run.config))
                if self._fixed is not None:
                    yield number, *self._fixed.take(inputs)
                else:
                    yield number, *compute(run, moved(inputs, run.fabric.device))

    @contextmanager
    def _drawn(self) -> Iterator[Iterator[tuple[int, Inputs]]]:
        """Numbers and inputs of the steps; for a GPU drawn ahead in threads."""
        run = self.run
        numbers = iter(range(run.start, run.config.iterations))
        if run.fabric.device.type != "cuda":
            yield ((number, inputs_of(run, number)) for number in numbers)
            return
        pool = ThreadPoolExecutor(min(_AHEAD, os.cpu_count() or 1), thread_name_prefix="scrd-draw")
        waiting: deque[tuple[int, Future[Inputs]]] = deque()

        def ahead() -> Iterator[tuple[int, Inputs]]:
            for number in numbers:
                waiting.append((number, pool.submit(inputs_of, run, number)))
                if len(waiting) > _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()

        try:
            yield ahead()
        finally:
            pool.shutdown(cancel_futures=True)


class _Fixed:
    """Tensors that stay in place, and the step that is captured on them."""

    def __init__(self, run: Run) -> None:
        device = run.fabric.device
        first = in_one_piece(inputs_of(run, run.start), pinned=False)
        assert first.piece is not None
        self._piece = first.piece.to(device)
        inputs = _laid_out(first, self._piece)
        batch = len(first.own)
        self.loss = torch.zeros((), device=device)
        self.scale_weights = torch.zeros(batch, len(run.model.weights), device=device)

        def work() -> None:
            loss, scale_weights = compute(run, moved(inputs, device))
            self.loss.copy_(loss)
            self.scale_weights.copy_(scale_weights)

        with _undone(run):
            self._replay = captured(work, device)

    def take(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        if inputs.piece is None:
            inputs = in_one_piece(inputs, pinned=False)
        assert inputs.piece is not None
        self._piece.copy_(inputs.piece, non_blocking=True)
        self._replay()
        return self.loss, self.scale_weights


@contextmanager
def _undone(run: Run) -> Iterator[None]:
    """Give weights, statistics and Adam's moments back the values that they had before."""
    weights = {k: v.clone() for k, v in trainable_state(run.model).items()}
    states = run.optimizer.state
    moments = {p: {k: v.clone() for k, v in s.items()} for p, s in states.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, values in trainable_state(run.model).items():
                values.copy_(weights[name])
            for parameter, state in states.items():
                for name, values in state.items():
                    known = moments.get(parameter)
                    if known is None:
                        values.zero_()  # as Adam begins
                    else:
                        values.copy_(known[name])
