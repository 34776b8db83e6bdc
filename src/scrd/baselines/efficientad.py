"""EfficientAD, built by anomalib; it needs files that cannot be had from a package registry."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.baselines.flows import from_anomalib
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.data.finding import find_images
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing, prepare
from scrd.data.reading import read_image
from scrd.errors import ScrdError
from scrd.model.weights import read_state_dict
from scrd.training.batches import batch_indices

TEACHER_FILE = Path("efficientad_pretrained_weights", "pretrained_teacher_small.pth")
"""The distilled teacher, within anomalib's release archive ``efficientad_pretrained_weights``."""

IMAGES_FOLDER = Path("imagenette2")
"""ImageNet images for the penalty: the archive of Imagenette that anomalib takes, or others."""

SIDE = 256
"""Side of the square input in pixels, as in the paper; the autoencoder needs that much."""

RATE, DECAY, LAST_RATE, LAST_SHARE = 1e-4, 1e-5, 1e-5, 0.05
"""Learning rate and weight decay of Adam, and the rate in the last share of the iterations;
appendix of the paper (rate 1e-5 after 66,500 of 70,000 iterations)."""

HELD_OUT = 0.1
"""Share of the normals that only the quantiles of the maps are taken from; appendix."""

GREY_SHARE = 0.3
"""Share of the ImageNet images that are turned grey; appendix."""

_CHUNK = 8  # images that go through the networks together where nothing is learnt


class EfficientAD(Baseline):
    """EfficientAD-S: Batzner, Heckler, König, WACV 2024.

    A student learns a small distilled teacher on the hardest 0.1 % of the features, held back by
    a penalty on ImageNet images; an autoencoder learns the same teacher, and the student the
    autoencoder. Both maps of differences are put on one scale by their quantiles 0.9 and 0.995 on
    held-out normals, which is part of the method, and averaged; the maximum is the score.
    Networks, losses and maps are anomalib's ``EfficientAdModel``.

    The teacher is the method: a network of four layers, distilled from WideResNet-101 on
    ImageNet. Ours has other strides and channels and cannot stand in for it, and a random one
    would be another method, so nothing is put in its place. ``budget.weights`` must name a folder
    in which two archives were unpacked, the ones that anomalib would download::

        FOLDER/efficientad_pretrained_weights/pretrained_teacher_small.pth
        FOLDER/imagenette2/.../*.JPEG

    In a suite: ``settings = { weights = "FOLDER" }`` in the row. ``budget.teacher`` is not used.

    Inputs are resized to 256 pixels, as in the paper, and maps brought back. The paper trains on
    single images; here a batch is of the budget's size, with as many ImageNet images, and the
    hardest features are those of the batch. A step costs some 3.5 · 10¹² multiplications for 16
    images: this is for a GPU.

    Raises:
        ScrdError: anomalib or one of the files is missing, or the weights do not fit.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        library = from_anomalib("models.image.efficient_ad.torch_model")
        teacher, self._imagenet = required_files(budget.weights)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.network = library.EfficientAdModel()
        try:
            self.network.teacher.load_state_dict(read_state_dict(teacher))
        except RuntimeError as e:
            raise ScrdError(
                f"{teacher}: not the weights of EfficientAD's small teacher: {e}"
            ) from e
        self.network.teacher.requires_grad_(False)

    def fit(self, images: Tensor) -> None:
        """See the base class. At least two images."""
        with torch.random.fork_rng():  # of augmentations and dropout
            torch.manual_seed(self.budget.seed)
            order = torch.randperm(len(images))
            count = max(1, round(HELD_OUT * len(images)))
            held_out, train = order[:count], order[count:]
            self.to(self.budget.device).train()
            self._standardise(images, train)
            self._train(images, train)
            self.eval()
            self._set_quantiles(images, held_out)

    def _train(self, images: Tensor, train: Tensor) -> None:
        budget = self.budget
        learned = [*self.network.student.parameters(), *self.network.ae.parameters()]
        optimizer = torch.optim.Adam(learned, lr=RATE, weight_decay=DECAY)
        for step in range(budget.iterations):
            if step >= (1 - LAST_SHARE) * budget.iterations:
                optimizer.param_groups[0]["lr"] = LAST_RATE
            index = train[batch_indices(step, budget.batch_size, len(train), budget.seed)]
            other = torch.randint(len(self._imagenet), (budget.batch_size,))
            penalty = torch.stack([imagenet_crop(self._imagenet[int(i)]) for i in other])
            losses = self.network(self._input(images[index]), penalty.to(budget.device))
            optimizer.zero_grad(set_to_none=True)
            sum(losses).backward()
            optimizer.step()

    @torch.no_grad()
    def _standardise(self, images: Tensor, train: Tensor) -> None:
        """Set mean and standard deviation of the teacher's channels, as the paper does."""
        total = square = torch.zeros((), dtype=torch.float64)
        count = 0
        for part in torch.split(train, _CHUNK):
            features = self.network.teacher(self._input(images[part])).double().cpu()
            total = total + features.sum(dim=(0, 2, 3), keepdim=True)
            square = square + features.square().sum(dim=(0, 2, 3), keepdim=True)
            count += features[:, 0].numel()
        mean = total / count
        std = (square / count - mean.square()).sqrt()
        moments = {"mean": mean, "std": std}
        self.network.mean_std.update(
            {name: value.float().to(self.budget.device) for name, value in moments.items()}
        )
        self.network.mean_std.requires_grad_(False)

    @torch.no_grad()
    def _set_quantiles(self, images: Tensor, held_out: Tensor) -> None:
        parts = [
            self.network.get_maps(self._input(images[part]), normalize=False)
            for part in torch.split(held_out, _CHUNK)
        ]
        library = from_anomalib("models.image.efficient_ad.torch_model")
        for name, maps in zip(("st", "ae"), zip(*parts, strict=True), strict=True):
            values = library.reduce_tensor_elems(torch.cat(maps))
            low, high = (torch.quantile(values, q) for q in (0.9, 0.995))
            self.network.quantiles.update({f"qa_{name}": low, f"qb_{name}": high})
        self.network.quantiles.requires_grad_(False)

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Without bound; 0.1 is the quantile 0.995 of held-out normals."""
        parts = [
            self.network(self._input(part)).anomaly_map for part in torch.split(images, _CHUNK)
        ]
        maps = torch.cat(parts)
        resized = F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)
        return Answer(maps.amax(dim=(1, 2, 3)).cpu(), resized.squeeze(1).cpu())

    def _input(self, images: Tensor) -> Tensor:
        """(B, 3, ``SIDE``, ``SIDE``), in [0, 1], on the device of the budget."""
        size = (SIDE, SIDE)
        images = images.to(self.budget.device).expand(-1, 3, -1, -1)
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def required_files(folder: str | None) -> tuple[Path, list[Path]]:
    """The teacher's weights and the ImageNet images in ``folder``.

    Raises:
        ScrdError: no folder is named, or it lacks one of them; the message says what goes where.
    """
    root = Path("FOLDER") if folder is None else Path(folder)
    teacher, imagenet = root / TEACHER_FILE, root / IMAGES_FOLDER
    images = find_images(imagenet) if imagenet.is_dir() else []
    if folder is None or not teacher.is_file() or not images:
        missing = teacher if folder is None or not teacher.is_file() else imagenet
        raise ScrdError(
            f"EfficientAD: {missing} is missing. It needs the distilled teacher as {teacher} (of "
            "anomalib's release archive efficientad_pretrained_weights.zip) and ImageNet images "
            f"in {imagenet} (such as the archive imagenette2.tgz); name FOLDER as the weights"
        )
    return teacher, images


def imagenet_crop(path: Path) -> Tensor:
    """Read an image for the penalty: the middle half of each side, at times grey.

    Returns:
        (3, ``SIDE``, ``SIDE``), float32, in [0, 1]. Drawn from the global random state.
    """
    pixels = read_image(path)
    rule = Preprocessing(Intensity(0, 255, 0, "rgb"), 2 * SIDE)
    image = torch.from_numpy(prepare(pixels, rule))
    middle = slice(SIDE // 2, SIDE // 2 + SIDE)
    crop = image[:, middle, middle]
    if torch.rand(()) < GREY_SHARE:
        luma = crop.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601
        crop = (crop * luma).sum(dim=0, keepdim=True).expand(3, -1, -1)
    return crop
