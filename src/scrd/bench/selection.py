"""The checkpoint that suits the test set best: a measurement of what such a choice is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scrd.bench.cases import Labelled
from scrd.data.preprocess import Preprocessing, content_masks
from scrd.metrics.ranks import auroc
from scrd.model import SCRD
from scrd.model.constants import TOP_FRACTION
from scrd.model.scores import Scores, map_statistics, measured
from scrd.training.checkpoint import trainable_state

CHECKS = 20
"""Checkpoints that are compared, evenly over the iterations; the last is one of them."""
_BATCH = 16


class BestOnTest:
    """Watches a training and, after its last step, puts back the weights that tested best.

    It looks at test labels, so what comes of it is no result: it shows by how much published
    figures rise whose checkpoint is chosen in this way. Training itself takes no notice, and its
    steps are those of a run that is not watched.

    Args:
        test: images with labels, of both classes.
        preprocessing: with which they became input.
        iterations: of the training.
        pooling: ``mean``, ``top`` or ``max`` of the map, by which the images are ranked.

    Attributes:
        iterations: of the checkpoints compared so far.
        aurocs: of each.
    """

    def __init__(
        self, test: Labelled, preprocessing: Preprocessing, iterations: int, pooling: str
    ) -> None:
        self._images = torch.from_numpy(test.stack.images)
        self._content = torch.from_numpy(content_masks(test.stack.source_sizes, preprocessing))
        self._labels = np.array([record.label for record in test.records])
        self._pooling, self._last = pooling, iterations
        count = min(CHECKS, iterations)
        self._due = {(i + 1) * iterations // count for i in range(count)}
        self._best: dict[str, Tensor] = {}
        self.iterations: list[int] = []
        self.aurocs: list[float] = []

    def __call__(self, done: int, model: SCRD) -> None:
        """Look at the network after ``done`` iterations; leaves it in the mode it was in."""
        if done not in self._due:
            return
        training = model.training
        model.eval()
        found = self._auroc(model)
        if not self.aurocs or found > max(self.aurocs):
            self._best = {name: t.clone() for name, t in trainable_state(model).items()}
        self.iterations.append(done)
        self.aurocs.append(found)
        if done == self._last:
            with torch.no_grad():
                for name, values in trainable_state(model).items():
                    values.copy_(self._best[name])
        model.train(training)

    def _auroc(self, model: SCRD) -> float:
        way, scores = Scores(model), []
        batches = (torch.split(x, _BATCH) for x in (self._images, self._content))
        with torch.inference_mode():
            for images, content in zip(*batches, strict=True):
                outputs = measured(model, images)
                maps = way.combine(*outputs, images.shape[-1]).cpu()
                scores.append(map_statistics(maps, content, TOP_FRACTION)[self._pooling])
        return float(auroc(torch.cat(scores).double().numpy(), self._labels))

    def told(self) -> dict[str, Any]:
        """For the result line: what was compared, and which was best."""
        best = int(np.argmax(self.aurocs))
        return {
            "iteration": self.iterations[best],
            "iterations": list(self.iterations),
            "auroc": list(self.aurocs),
        }
