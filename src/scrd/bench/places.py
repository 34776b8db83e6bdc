"""Where a method's maps point: kept while the test images are scored, compared afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scrd.bench.cases import Labelled
from scrd.data.cache import allocate
from scrd.data.preprocess import Preprocessing, map_to_source
from scrd.evaluation.localise import localise


class Places:
    """The maps that masks or boxes have something to say about.

    Those are the maps of the images with a mask or a box and of all normal images, which count as
    free of lesions. So pixel AUROC, pixel AP and AUPRO are over the pixels of all test images
    together, the normals' among them, as is usual; an abnormal image whose lesion nobody has marked
    takes no part. Every method's maps come here at the model's resolution and go to the source
    image's geometry in the same way.
    """

    def __init__(self, test: Labelled, preprocessing: Preprocessing, memory_limit: int) -> None:
        """Choose the images; nothing is kept of a set without masks and boxes.

        Args:
            test: N images.
            preprocessing: with which they became input.
            memory_limit: bytes of maps above which these lie on the disk.
        """
        known = [r.mask is not None or bool(r.boxes) for r in test.records]
        self._chosen = [
            i for i, r in enumerate(test.records) if any(known) and (known[i] or r.label == 0)
        ]
        self._row = {i: row for row, i in enumerate(self._chosen)}
        self._test, self._preprocessing, self._limit = test, preprocessing, memory_limit
        self._maps: NDArray[np.float32] | None = None

    def keep(self, first: int, maps: Tensor) -> None:
        """Take the maps (B, S, S), float32, on the CPU, of the images from ``first`` on."""
        if not self._chosen:
            return
        if self._maps is None:
            self._maps = allocate((len(self._chosen), *maps.shape[1:]), self._limit)
        for i, values in enumerate(maps.numpy(), start=first):
            if i in self._row:
                self._maps[self._row[i]] = values

    def figures(self) -> dict[str, float | int]:
        """See :func:`scrd.evaluation.localise.localise`; empty without marked images or maps.

        ``n_left_out`` is the number of masks and boxes that cannot be used, if there are any.
        """
        maps = self._maps
        if maps is None:
            return {}
        sizes = [self._test.stack.source_sizes[i] for i in self._chosen]
        found = localise(
            [self._test.records[i] for i in self._chosen],
            sizes,
            lambda row: map_to_source(maps[row], sizes[row], self._preprocessing),
        )
        left_out = {"n_left_out": len(found.failures)}
        return found.figures | left_out if found.figures and found.failures else found.figures
