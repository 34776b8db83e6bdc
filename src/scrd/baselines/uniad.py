"""UniAD: a transformer that must rebuild teacher features without looking at the same place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.baselines.features import OncePerImage, extract, seeded_teacher, upsample
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.training.batches import batch_indices

GRID = 14
"""Side of the grid of tokens: 14 x 14, whatever the size of the image (the paper's)."""

NEIGHBOURHOOD = 7
"""Side, in tokens, of the square around a token that its attention does not see (the paper's)."""

JITTER = 20.0
"""Scale alpha of the jitter (the paper's); every token of every image is jittered."""

LAYERS = 4
"""Layers of the encoder, and of the decoder (the paper's)."""

WIDTH, HIDDEN, HEADS = 64, 256, 4
"""Channels of a token, of the feed-forward layers, and heads: the paper's are 256, 1,024 and 8."""

DROPOUT = 0.1
"""Of what is added to a token (the released code's)."""

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4
"""AdamW's; the paper's rate is 1e-4."""

DECAY_AT, DECAY = 0.8, 0.1
"""Share of the steps after which the rate falls, and its factor (800 of 1,000 epochs)."""

CLIP = 0.1
"""Largest norm of the gradient (the released code's)."""

SCALE_IMAGES = 64
"""Images drawn to measure the spread of the teacher's features."""


def neighbour_mask(side: int, neighbourhood: int) -> Tensor:
    """Which tokens of a grid a token must not attend to: itself and its neighbours.

    Args:
        side: of the grid.
        neighbourhood: side of the square, odd.

    Returns:
        (side², side²), bool, True where query (row) and key (column) are neighbours.
    """
    y, x = torch.arange(side * side) // side, torch.arange(side * side) % side
    reach = neighbourhood // 2
    near: Tensor = ((y[:, None] - y).abs() <= reach) & ((x[:, None] - x).abs() <= reach)
    return near


def jitter(tokens: Tensor, noise: Tensor) -> Tensor:
    """Feature jittering: noise as strong as the token is long.

    Args:
        tokens: f, (B, N, C), float.
        noise: standard normal, shaped like ``tokens``.

    Returns:
        f + alpha ‖f‖₂ / C · noise, alpha = ``JITTER``.
    """
    length: Tensor = tokens.norm(dim=2, keepdim=True)
    return tokens + JITTER * length / tokens.shape[2] * noise


class NeighbourMaskedAttention(nn.Module):
    """Attention of the tokens of a grid that leaves out a token's own neighbourhood.

    Attributes:
        mask: (N, N), bool, see :func:`neighbour_mask`, N = ``GRID``².
    """

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.register_buffer("mask", neighbour_mask(GRID, NEIGHBOURHOOD), persistent=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend; all arguments and the result are (B, N, C), float."""
        out: Tensor = self.attention(query, key, value, attn_mask=self.mask, need_weights=False)[0]
        return out


class FeedForward(nn.Module):
    """Two linear layers beside the token, and layer normalisation; (B, N, C) to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, WIDTH)
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform every token by itself."""
        out: Tensor = self.norm(tokens + self.dropout(self.layers(tokens)))
        return out


class EncoderLayer(nn.Module):
    """Neighbour-masked self-attention and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = NeighbourMaskedAttention()
        self.dropout = nn.Dropout(DROPOUT)
        self.norm = nn.LayerNorm(WIDTH)
        self.feed_forward = FeedForward()

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """Map tokens (B, N, C) to the same shape; ``position`` is (N, C)."""
        where = tokens + position
        attended = self.attention(where, where, tokens)
        out: Tensor = self.feed_forward(self.norm(tokens + self.dropout(attended)))
        return out


class QueryLayer(nn.Module):
    """A layer of the layer-wise query decoder.

    It starts from a trained query embedding of its own, not from the layer before: the embedding
    first gathers from the encoder's tokens, then from the layer before, each time by
    neighbour-masked attention.

    Attributes:
        query: (N, C), float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(GRID * GRID, WIDTH))
        self.from_encoder = NeighbourMaskedAttention()
        self.from_before = NeighbourMaskedAttention()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.dropout = nn.Dropout(DROPOUT)
        self.feed_forward = FeedForward()

    def forward(self, before: Tensor, encoded: Tensor, position: Tensor) -> Tensor:
        """Decode.

        Args:
            before: (B, N, C), what the layer before gave; ``encoded`` for the first layer.
            encoded: (B, N, C), from the encoder.
            position: (N, C).

        Returns:
            (B, N, C).
        """
        tokens = self.query.expand_as(encoded)
        gathered = self.from_encoder(tokens + position, encoded + position, encoded)
        tokens = self.norms[0](tokens + self.dropout(gathered))
        gathered = self.from_before(tokens + position, before + position, before)
        out: Tensor = self.feed_forward(self.norms[1](tokens + self.dropout(gathered)))
        return out


class UniAD(Baseline):
    """UniAD: You, Cui, Shen, Yang, Lu, Zheng, Le, NeurIPS 2022.

    "A unified model for multi-class anomaly detection". The teacher's maps are brought to one
    grid and concatenated, jittered (:func:`jitter`), encoded and decoded by a transformer whose
    attention is masked (:class:`NeighbourMaskedAttention`) and whose every decoder layer has a
    trained query (:class:`QueryLayer`), so that features cannot simply be passed on. The loss is
    the mean squared difference to the features without jitter. The map is the L2 norm of the
    difference; the score is the maximum of the map after average pooling over one cell of the
    grid (16 x 16 pixels of the paper's 224).

    Departures:

    - A quarter of the paper's channels and half of its heads (``WIDTH``, ``HIDDEN``, ``HEADS``):
      0.8 s a step of 16 images on a CPU core, four minutes for 300.
    - A learning rate of 1e-3 instead of 1e-4, which the paper pairs with far more steps: after 30
      steps on brain MR slices the error on held-out normals is 0.83 with 1e-3, 1.09 with 1e-4,
      where the mean feature has 0.83. So 30 steps are too few with either.
    - All features are divided by one constant that gives them a mean square of one on normals,
      without which the last layer would first have to learn their unit.
    - Three of the teacher's maps instead of four, since no teacher here gives the one at stride 2.
    - No dropout of attention weights. One class of images a model. The 1,000 epochs are the
      iterations of the budget, and the rate falls after four fifths of them as there.
    """

    scale: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        self.register_buffer("scale", torch.ones(()))
        channels = sum(self.teacher.channels)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.reduce = nn.Linear(channels, WIDTH)
            self.position = nn.Parameter(torch.rand(GRID * GRID, WIDTH))
            self.encoder = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
            self.decoder = nn.ModuleList(QueryLayer() for _ in range(LAYERS))
            self.restore = nn.Linear(WIDTH, channels)

    def tokens(self, images: Tensor) -> Tensor:
        """Scaled teacher features on one grid, (B, GRID², C_1 + C_2 + C_3), of (B, C, S, S)."""
        features = extract(self.teacher, images, self.budget.device)
        size = (GRID, GRID)
        maps = [
            F.interpolate(u.float(), size, mode="bilinear", align_corners=False) for u in features
        ]
        return torch.cat(maps, dim=1).flatten(2).mT.contiguous() * self.scale

    def reconstruct(self, tokens: Tensor) -> Tensor:
        """Rebuild features (B, GRID², C) from features, jittered or not, of the same shape."""
        encoded = self.reduce(tokens)
        for layer in self.encoder:
            encoded = layer(encoded, self.position)
        decoded = encoded
        for layer in self.decoder:
            decoded = layer(decoded, encoded, self.position)
        out: Tensor = self.restore(decoded)
        return out

    def fit(self, images: Tensor) -> None:
        """Train the transformer.

        Args:
            images: (N, C, S, S), float32, in [0, 1], C = 1 or 3, on the CPU.

        Raises:
            TrainingError: the loss is not finite at the end.
        """
        with torch.random.fork_rng():  # of which the dropout draws
            torch.manual_seed(self.budget.seed)
            loss = self._train(images)
        self.eval()
        self.require_finite(loss)

    def _train(self, images: Tensor) -> float:
        budget = self.budget
        self.to(budget.device).train()
        drawn = batch_indices(0, SCALE_IMAGES, len(images), budget.seed)
        self.scale = 1 / self.tokens(images[drawn]).square().mean().sqrt()
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        generator = torch.Generator().manual_seed(budget.seed)
        loss = torch.zeros(())
        tokens_of = OncePerImage(lambda some: (self.tokens(some),), images)
        for step in range(budget.iterations):
            if step == math.ceil(DECAY_AT * budget.iterations):
                optimizer.param_groups[0]["lr"] *= DECAY
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            (tokens,) = tokens_of(index)
            noise = torch.randn(tokens.shape, generator=generator).to(tokens.device)
            loss = F.mse_loss(self.reconstruct(jitter(tokens, noise)), tokens)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, CLIP)
            optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are L2 norms in the units of the features."""
        self.eval()
        tokens = self.tokens(images)
        size = images.shape[-1]
        maps = upsample((self.reconstruct(tokens) - tokens).norm(dim=2), size)
        pooled = F.avg_pool2d(maps.unsqueeze(1), max(1, round(size / GRID)), stride=1)
        return Answer(pooled.flatten(1).amax(dim=1).cpu(), maps.cpu())
