"""UCAD: prompts that make a frozen teacher's features follow the structure of normal images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from scrd.baselines.features import (
    draw_patches,
    extract,
    patch_features,
    seeded_teacher,
    upsample,
)
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.baselines.patchcore import greedy_k_center, nearest_distances
from scrd.model.teacher import Teacher
from scrd.model.vit import ResampledViT, quarters
from scrd.model.weights import TeacherError
from scrd.training.batches import batch_indices

MEMORY = 196
"""Features of a task's key, and of its knowledge: as many as an image has tokens in the paper."""

POOL_LIMIT = 20_000
"""Most features that key and knowledge are chosen from, drawn at random, ours."""

LEARNING_RATE = 5e-3
"""Adam's rate, for prompts in units of the features' standard deviations (ours)."""

SCALE_IMAGES = 64  # drawn to measure these standard deviations

BLUR = 1 / 64
"""Standard deviation of the Gaussian whose gradients separate regions, in sides of the image."""

_SIDE = 64  # pixels of the image that shows which layer makes which map


def regions(image: np.ndarray, side: int) -> np.ndarray:
    """Regions of an image, by watershed: its basins of even brightness.

    The magnitude of the image's smoothed gradient (the largest of the channels') is flooded from
    its local minima by the image foresting transform of :func:`scipy.ndimage.watershed_ift`.

    Args:
        image: (C, S, S), float, of any range.
        side: of the grid of positions, at most S.

    Returns:
        (side², ), int64, the region of the middle of each position, row by row, counted from 1.
    """
    size = image.shape[-1]
    sigma = BLUR * size
    slope = np.max([ndimage.gaussian_gradient_magnitude(c, sigma) for c in image], axis=0)
    top = max(float(slope.max()), 1e-6)
    levels = np.round(255 * slope / top).astype(np.uint8)
    minima = levels == ndimage.minimum_filter(levels, size=max(3, round(2 * sigma) | 1))
    seeds, _ = ndimage.label(minima, structure=np.ones((3, 3)))
    flooded = ndimage.watershed_ift(levels, seeds.astype(np.int32))
    middle = (2 * np.arange(side) + 1) * size // (2 * side)
    grid: np.ndarray = flooded[np.ix_(middle, middle)].reshape(-1).astype(np.int64)
    return grid


def structure_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Structure-based contrastive loss: together within a region, apart across regions.

    Cosines are those of the deviations from the image's mean feature, so that what is added to
    all positions alike cannot lower the loss.

    Args:
        features: (B, P, C), float.
        labels: (B, P), int64, the regions.

    Returns:
        Mean cosine of the pairs of different regions minus that of the pairs of one region,
        without a position and itself, each over all pairs of the batch's images; (), in [-2, 2].
    """
    unit = F.normalize(features - features.mean(dim=1, keepdim=True), dim=2)
    cosine = unit @ unit.mT
    same = labels[:, :, None] == labels[:, None, :]
    itself = torch.eye(labels.shape[1], dtype=torch.bool, device=labels.device)
    together, apart = same & ~itself, ~same
    pull = (cosine * together).sum() / together.sum().clamp_min(1)
    push = (cosine * apart).sum() / apart.sum().clamp_min(1)
    return push - pull


def prompted_layers(teacher: Teacher) -> tuple[nn.Module, nn.Module]:
    """The layers of a teacher that put out its first and its second map.

    It is the last module whose output is the map itself; else the last one whose output has the
    map's shape; in a :class:`ResampledViT` the blocks that are read.

    Args:
        teacher: on the CPU.

    Raises:
        TeacherError: there is no such layer.
    """
    for module in teacher.modules():
        if isinstance(module, ResampledViT):
            blocks = list(module.get_submodule("blocks.model.blocks").children())
            first, second, _ = quarters(len(blocks))
            return blocks[first], blocks[second]
    outputs: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append((module, output))

    handles = [m.register_forward_hook(note) for m in teacher.backbone.modules()]
    maps = teacher.backbone(torch.zeros(1, 3, _SIDE, _SIDE))
    for handle in handles:
        handle.remove()
    found = []
    for u in maps[:2]:
        exact = [m for m, output in outputs if output is u and m is not teacher.backbone]
        alike = [m for m, output in outputs if output.shape == u.shape]
        if not exact and not alike:
            raise TeacherError("ucad finds no layer of this teacher that a prompt could follow")
        found.append((exact or alike)[-1])
    return found[0], found[1]


class Prompt(nn.Module):
    """What a task adds to the features on their way through the frozen teacher.

    Attributes:
        shifts: trained, (C_1,) and (C_2,), float32, added at every position of a map.
        spread0, spread1: like them, the unit of the shifts.
    """

    def __init__(self, spreads: list[Tensor]) -> None:
        super().__init__()
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros_like(s)) for s in spreads)
        for k, spread in enumerate(spreads):
            self.register_buffer(f"spread{k}", spread)

    def shift(self, layer: int) -> Tensor:
        """(C_k,), float32, in the units of the features."""
        spread: Tensor = getattr(self, f"spread{layer}")
        shift: Tensor = self.shifts[layer] * spread
        return shift


class Task(nn.Module):
    """Key, prompt and knowledge of what was learnt from one call of ``fit``.

    Attributes:
        key: (M, C), float32, features of normals without prompt: which task an image belongs to.
        prompt: see :class:`Prompt`.
        knowledge: (M, C), float32, features of normals with the prompt.
    """

    key: Tensor
    knowledge: Tensor

    def __init__(self, key: Tensor, spreads: list[Tensor]) -> None:
        super().__init__()
        self.register_buffer("key", key)
        self.register_buffer("knowledge", torch.empty(0))
        self.prompt = Prompt(spreads)


class UCAD(Baseline):
    """UCAD: Liu, Wu, Nie, Chen, Gao, Liu, Wang, Wang, Zheng, AAAI 2024.

    "Unsupervised continual anomaly detection with contrastively-learned prompt". A memory of
    tasks (:class:`Task`) beside a frozen teacher. An image goes to the task whose key is nearest
    to its features, summed over the positions; then the teacher sees it again with that task's
    prompt, and the distance of every position to the nearest of the knowledge is the map, the
    largest the score. Prompts are trained by contrast: features within one region of a normal
    image are drawn together, those of different regions pushed apart (:func:`structure_loss`).
    Key and knowledge are greedy k-center choices. Each call of ``fit`` adds one task and leaves
    the others as they are; the benchmark calls it once.

    Departures:

    - The paper's backbone is a ViT whose prompts enter the first five blocks. Here it is the
      teacher of the budget, and a prompt is one vector for each of its first two maps, which the
      stages that follow see; the features are :func:`scrd.baselines.features.patch_features`.
    - The regions are a watershed's of the image (:func:`regions`), not those of Segment Anything,
      whose weights are no part of this benchmark.
    - Sums over pairs are means, so that neither kind outweighs the other by number, and cosines
      are taken after each image's mean feature is subtracted.
    - Prompts start at zero, in standard deviations of the features, with a rate of their own; the
      largest distance is not re-weighted by how isolated its neighbour is.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        self.layers = prompted_layers(self.teacher)
        form = str(getattr(self.teacher.backbone, "output_fmt", "NCHW"))
        self._channels_last = form.endswith("NHWC")
        self.tasks = nn.ModuleList()

    def fit(self, images: Tensor) -> None:
        """Learn a further task.

        Args:
            images: (N, C, S, S), float32, in [0, 1], C = 1 or 3, on the CPU.

        Raises:
            TrainingError: the loss is not finite at the end.
        """
        budget = self.budget
        torch.backends.cudnn.deterministic = True
        self.to(budget.device).eval()
        generator = torch.Generator().manual_seed(budget.seed)
        drawn = batch_indices(0, SCALE_IMAGES, len(images), budget.seed)
        shallow = extract(self.teacher, images[drawn], budget.device)[:2]
        spreads = [u.float().std(dim=(0, 2, 3)) for u in shallow]
        task = Task(self._memorise(images, generator), spreads).to(budget.device)
        self._train(task.prompt, images)
        with self.prompted(task.prompt):
            task.knowledge = self._memorise(images, generator)
        self.tasks.append(task)

    @contextmanager
    def prompted(self, prompt: Prompt) -> Iterator[None]:
        """Let the teacher see ``prompt``; its second map is read with its shift."""

        def hook(layer: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
            def add(_: nn.Module, __: object, output: Tensor) -> Tensor:
                shift = prompt.shift(layer)
                tokens = output.ndim == 3 or self._channels_last
                return output + (shift if tokens else shift.view(-1, 1, 1))

            return add

        handles = [m.register_forward_hook(hook(k)) for k, m in enumerate(self.layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def choose(self, images: Tensor) -> Tensor:
        """The task of each of (B, C, S, S) images, (B,), int64: the nearest key's."""
        if len(self.tasks) == 1:
            return torch.zeros(len(images), dtype=torch.long)
        patches = patch_features(extract(self.teacher, images, self.budget.device))
        keys = [task.key for task in self._learnt()]
        sums = [[nearest_distances(p, key)[0].sum() for p in patches] for key in keys]
        return torch.tensor(sums).argmin(dim=0)

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are Euclidean distances between features."""
        chosen = self.choose(images)
        scores = torch.zeros(len(images))
        maps = torch.zeros(len(images), *images.shape[-2:])
        for number, task in enumerate(self._learnt()):
            index = (chosen == number).nonzero().squeeze(1)
            if not len(index):
                continue
            with self.prompted(task.prompt):
                patches = patch_features(extract(self.teacher, images[index], self.budget.device))
            # one image at a time: P x M distances are what the memory holds
            distances = torch.stack([nearest_distances(p, task.knowledge)[0] for p in patches])
            scores[index] = distances.amax(dim=1).cpu()
            maps[index] = upsample(distances, images.shape[-1]).cpu()
        return Answer(scores, maps)

    def _learnt(self) -> list[Task]:
        return [task for task in self.tasks if isinstance(task, Task)]

    def _memorise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(M, C), at most ``MEMORY`` features that cover those of the images."""
        pool = draw_patches(self.teacher, images, self.budget.device, POOL_LIMIT, generator)
        start = int(torch.randint(len(pool), (), generator=generator))
        return pool[greedy_k_center(pool, min(MEMORY, len(pool)), start)]

    def _train(self, prompt: Prompt, images: Tensor) -> None:
        budget = self.budget
        side = images.shape[-1] // 8
        labels = torch.from_numpy(np.stack([regions(image.numpy(), side) for image in images]))
        optimizer = torch.optim.Adam(prompt.parameters(), lr=LEARNING_RATE)
        loss = torch.zeros(())
        for step in range(budget.iterations):
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            image = images[index].to(budget.device).contiguous(memory_format=torch.channels_last)
            with self.prompted(prompt):
                features = patch_features(self.teacher.features(image))
            loss = structure_loss(features, labels[index].to(budget.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.require_finite(loss.detach())
