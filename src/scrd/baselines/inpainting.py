"""In-painting of features on a grid: memory queues of each place, and its neighbours'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 2
"""Patches along each side of the image."""

SLOTS = 200
"""Patches that the memory of a place holds."""

KEPT = 5
"""Memory items that Gumbel shrinkage leaves."""

HEADS = 8
"""Attention heads of the in-painting block."""


def to_patches(image: Tensor) -> Tensor:
    """Cut (B, C, H, W) into ``GRID`` by ``GRID`` patches: (B GRID², C, H/GRID, W/GRID).

    The patches of an image follow each other, row by row.
    """
    batch, channels, height, width = image.shape
    cut = image.reshape(batch, channels, GRID, height // GRID, GRID, width // GRID)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // GRID, width // GRID)


def from_patches(patches: Tensor) -> Tensor:
    """Put together what :func:`to_patches` cut."""
    count, channels, height, width = patches.shape
    cut = patches.reshape(count // GRID**2, GRID, GRID, channels, height, width)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, GRID * height, GRID * width)


def gumbel_shrink(weights: Tensor, kept: int = KEPT) -> Tensor:
    """Keep the largest weights of each row, rescaled to sum to 1; the gradient is that of all.

    Args:
        weights: (..., N), float, non-negative, rows sum to 1.
        kept: k; weights equal to the k-th largest stay too.

    Returns:
        (..., N), float, rows sum to 1. Gradients pass as if nothing had been done (straight
        through): sg(shrunk − w) + w.
    """
    least = weights.topk(min(kept, weights.shape[-1]), dim=-1).values[..., -1:]
    shrunk = F.normalize(weights * (weights >= least), p=1.0, dim=-1)
    return (shrunk - weights).detach() + weights


def neighbours(tokens: Tensor) -> Tensor:
    """The up to eight places around each place of the grid, never the place itself.

    Args:
        tokens: (B, GRID², D), float, one a place, row by row.

    Returns:
        (B, GRID², 8, D), row by row; zeros where the neighbour lies outside the grid.
    """
    grid = tokens.reshape(len(tokens), GRID, GRID, -1)
    padded = F.pad(grid, (0, 0, 1, 1, 1, 1))
    around = [
        padded[:, y : y + GRID, x : x + GRID]
        for y in range(3)
        for x in range(3)
        if (y, x) != (1, 1)
    ]
    return torch.stack(around, dim=3).flatten(1, 2)


class MemoryQueues(nn.Module):
    """One queue of past patches for each place of the grid.

    Attributes:
        items: (GRID², SLOTS, D), float32, the patches, the oldest overwritten first; what no patch
            has overwritten yet is random.
        written: (), int64, patches that each place has taken so far.
    """

    items: Tensor
    written: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        bound = size**-0.5
        self.register_buffer("items", torch.empty(GRID**2, SLOTS, size).uniform_(-bound, bound))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def forward(self, tokens: Tensor) -> Tensor:
        """Read each place's patch from that place's queue.

        Args:
            tokens: (B, GRID², D), float.

        Returns:
            (B, GRID², D): sums of items, with the shrunk softmax of inner products over √D for
            weights.
        """
        scale = tokens.shape[-1] ** -0.5
        similarity = scale * torch.einsum("bpd,pnd->bpn", tokens, self.items)
        return torch.einsum("bpn,pnd->bpd", gumbel_shrink(similarity.softmax(dim=-1)), self.items)

    @torch.no_grad()
    def push(self, tokens: Tensor) -> None:
        """Put (B, GRID², D) patches into the queues of their places; the last ``SLOTS`` of them."""
        tokens = tokens[-SLOTS:]
        slots = (self.written + torch.arange(len(tokens), device=self.written.device)) % SLOTS
        self.items[:, slots] = tokens.transpose(0, 1)
        self.written += len(tokens)


def convolution(before: int, after: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the size, BatchNorm and ReLU."""
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class InPainting(nn.Module):
    """Rebuild each place's features from its memory and from the memories around it."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        narrow = channels // 4
        size = narrow * side**2
        self.shape = (narrow, side, side)
        self.reduce = convolution(channels, narrow, 1)
        self.memory = MemoryQueues(size)
        self.attention = nn.MultiheadAttention(size, HEADS, batch_first=True)
        self.first_norm = nn.LayerNorm(size)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, size // 4), nn.ReLU(inplace=True), nn.Linear(size // 4, size)
        )
        self.second_norm = nn.LayerNorm(size)
        self.expand = convolution(narrow, channels, 1)

    def attend(self, tokens: Tensor, remembered: Tensor) -> Tensor:
        """Ask the memories around each place with its patch.

        Args:
            tokens: (B, GRID², D), float: the queries.
            remembered: same: what each place's memory holds for it; keys and values are those of
                the neighbours, the place's own is masked.

        Returns:
            (B, GRID², D).
        """
        around = neighbours(remembered).flatten(0, 1)
        query = tokens.flatten(0, 1).unsqueeze(1)
        answer: Tensor = self.attention(query, around, around, need_weights=False)[0]
        return answer.view_as(tokens)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """In-paint.

        Args:
            features: (B GRID², C, h, h), float.

        Returns:
            In-painted features of the same shape, and the patches to remember, (B, GRID², D),
            without gradient.
        """
        tokens = self.reduce(features).flatten(1).unflatten(0, (-1, GRID**2))
        remembered = self.memory(tokens)
        mixed = F.relu(self.first_norm(self.attend(tokens, remembered) + remembered))
        mixed = F.relu(self.second_norm(self.feed_forward(mixed) + mixed))
        return self.expand(mixed.reshape(-1, *self.shape)), tokens.detach()
