"""Choose the constants of the anomaly map by leave-one-set-out, on the development sets.

    python benchmarks/choose_constants.py collect --data FOLDER --out MAPS --seeds 0 1 2
    python benchmarks/choose_constants.py choose MAPS

FOLDER has a folder for each set; `demonstration` is the folder `scrd-demo/data` of `scrd demo`.
`collect` trains a detector a set and seed with the budget `cpu` and keeps the network's maps of
training normals, of some with lesions, and of test images. `choose` tries every candidate. The
candidates are in this file. For each set the candidate is taken that does best on the *other* sets;
what it then reaches on the set itself is what the choice is worth. The candidate that does best on
all sets is what `scrd.model.constants` states.

The value of a candidate on a set is the mean of what the set can say: the AUROC (in %), and, where
lesions are marked, how often the map points at one (in %). The value on several sets is the mean of
these, each less the mean over all candidates, so that no set counts more because it is easier.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.bench.budgets import BUDGETS
from scrd.bench.material import Labelled, read_material
from scrd.config import Config
from scrd.data.marks import mark
from scrd.detector import Detector
from scrd.metrics.ranks import auroc
from scrd.model.areas import highest_means
from scrd.model.normals import NormalMaps
from scrd.model.scores import agreement, anomaly_map, measured
from scrd.storage.plain import from_plain
from scrd.system.allocator import reused_memory
from scrd.training.by_position import by_position
from scrd.training.normals import maps_with_lesions
from scrd.training.setup import STATISTICS_IMAGES, spread

SETS = ("lgg-flair", "rsna-cxr", "isic2018", "brain-tumor-mri", "demonstration")
WEIGHTS = (0.5, 1.0, 2.0)
"""Of the lesion head, beside a memory of weight 1."""
SHARPNESS = (0.0, 1.0, 2.0, 4.0)
MEMORY_LEVELS = (0.0, 0.5)
LESION_LEVELS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Candidate:
    """What is tried; 0 or infinite ``lesions`` are memory or head alone."""

    lesions: float
    sharpness: float
    memory_level: float
    lesions_level: float


def candidates() -> list[Candidate]:
    memory = itertools.product([0.0], [0.0], MEMORY_LEVELS, [0.0])
    head = itertools.product([np.inf], [0.0], [0.0], LESION_LEVELS)
    both = itertools.product(WEIGHTS, SHARPNESS, MEMORY_LEVELS, LESION_LEVELS)
    return [Candidate(*c) for c in (*memory, *head, *both)]


def collect(data: Path, out: Path, sets: Sequence[str], seeds: Sequence[int]) -> None:
    """Train and keep maps, one file a set and seed."""
    out.mkdir(parents=True, exist_ok=True)
    for seed, name in itertools.product(seeds, sets):
        config = from_plain(Config, {**BUDGETS["cpu"], "seed": seed})
        material = read_material(data / name, config)
        detector = Detector.fit(material.prepared, config)
        model = detector.model

        def maps(images: Tensor, model: torch.nn.Module = model) -> list[Tensor]:
            parts = [measured(model, batch).maps for batch in torch.split(images, 16)]
            return [torch.cat(one).half() for one in zip(*parts, strict=True)]

        kept: dict[str, object] = {
            "normal": maps(
                spread(torch.from_numpy(material.prepared.fitting.images), STATISTICS_IMAGES)
            ),
            "test": maps(torch.from_numpy(material.test.stack.images)),
            "labels": torch.tensor([r.label for r in material.test.records]),
        }
        changed, where = maps_with_lesions(
            model, torch.from_numpy(material.prepared.fitting.images), seed
        )
        kept["changed"], kept["lesions"] = [m.half() for m in changed], where.half()
        places = material.marked or material.test
        kept["marked"], kept["masks"] = _marked(places, config.image_size)
        if material.marked:
            kept["marked_maps"] = maps(torch.from_numpy(material.marked.stack.images))
        torch.save(kept, out / f"{name}-{seed}.pt")
        print(f"{name}, seed {seed}: {detector.provenance['seconds']} s of training", flush=True)


def _marked(test: Labelled, size: int) -> tuple[Tensor, Tensor]:
    """Which images are marked, and their masks at the model's size."""
    rows, masks = [], []
    for i, (record, extent) in enumerate(zip(test.records, test.stack.source_sizes, strict=True)):
        if record.mask is not None or record.boxes:
            pixels = torch.from_numpy(mark(record, extent).pixels)
            if pixels.any():
                rows.append(i)
                shrunk = F.interpolate(pixels[None, None].float(), (size, size), mode="area")
                masks.append(shrunk[0, 0] >= 0.5)
    empty = torch.zeros(0, size, size, dtype=torch.bool)
    return torch.tensor(rows, dtype=torch.long), torch.stack(masks) if masks else empty


class Kept:
    """The maps of one set and seed."""

    def __init__(self, path: Path) -> None:
        found = torch.load(path)
        self.parts = {k: [m.float() for m in found[k]] for k in ("normal", "test")}
        rows = found["marked"]
        marked = found.get("marked_maps") or [m[rows] for m in self.parts["test"]]
        self.parts["marked"] = [m.float() for m in marked]
        self.changed, self.lesions = [m.float() for m in found["changed"]], found["lesions"].float()
        self.labels, self.masks = found["labels"].numpy(), found["masks"]
        self.size = found["lesions"].shape[-1]
        self._read: dict[tuple[int, float], dict[str, Tensor]] = {}

    def read(self, k: int, level: float) -> dict[str, Tensor]:
        """The k-th map against normals, (N, S, S); kept, since candidates share it."""
        if (k, level) not in self._read:
            normal = self.parts["normal"][k]
            own = by_position([normal], [self.changed[k]], self.lesions, [level])
            normals = NormalMaps([normal.shape[-1]], [level])
            normals.fit([[normal]], own)
            self._read[k, level] = {
                part: normals([maps[k]])[0] for part, maps in self.parts.items()
            }
        return self._read[k, level]

    def figures(self, candidate: Candidate) -> dict[str, float]:
        """AUROC by areas, and pointing where something is marked, in %."""
        maps = {part: self._map(candidate, part) for part in self.parts}

        def areas(part: str) -> Tensor:
            cells = maps[part].flatten(1)  # of 8 x 8 pixels: the map's own resolution
            return highest_means(cells, torch.ones_like(cells, dtype=torch.bool))

        normal, test = areas("normal"), areas("test")
        scores = ((test - normal.mean(dim=0)) / normal.std(dim=0)).amax(dim=1)
        found = {"auroc": 100 * auroc(scores.numpy(), self.labels)}
        if len(self.masks):
            one = torch.ones(len(self.masks), 1)
            peaks = anomaly_map([maps["marked"]], one, self.size).flatten(1).argmax(1)
            hits = self.masks.flatten(1).gather(1, peaks[:, None])
            found["pointing"] = 100 * float(hits.float().mean())
        return found

    def _map(self, candidate: Candidate, part: str) -> Tensor:
        """The anomaly map at stride 8."""
        memory = self.read(0, candidate.memory_level)[part]
        head = self.read(1, candidate.lesions_level)[part]
        if candidate.lesions in (0, np.inf):
            return head if candidate.lesions else memory
        weights = torch.tensor([[1.0, candidate.lesions]]) / (1 + candidate.lesions)
        return agreement([memory, head], weights, candidate.sharpness)


def choose(folder: Path) -> Iterator[dict[str, object]]:
    """One line a set, and one for all of them."""
    tried = candidates()
    table: dict[str, list[dict[str, float]]] = {}
    for name in SETS:
        several = [Kept(path) for path in sorted(folder.glob(f"{name}-[0-9]*.pt"))]
        if several:
            table[name] = [_mean([kept.figures(c) for kept in several]) for c in tried]
    values = {n: np.array([np.mean(list(f.values())) for f in rows]) for n, rows in table.items()}
    worth = {n: v - v.mean() for n, v in values.items()}
    for left_out in (*table, None):
        others = [w for n, w in worth.items() if n != left_out]
        best = int(np.mean(others, axis=0).argmax())
        yield {
            "left_out": left_out,
            "candidates": len(tried),
            "chosen": asdict(tried[best]),
            "figures": {n: rows[best] for n, rows in table.items() if left_out in (None, n)},
        }


def _mean(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {k: float(np.mean([one[k] for one in several])) for k in several[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="train and keep maps")
    collecting.add_argument("--data", type=Path, required=True)
    collecting.add_argument("--out", type=Path, required=True)
    collecting.add_argument("--sets", nargs="+", default=SETS)
    collecting.add_argument("--seeds", nargs="+", type=int, default=[0])
    choosing = commands.add_parser("choose", help="choose among the candidates")
    choosing.add_argument("maps", type=Path)
    args = parser.parse_args()
    if args.command == "collect":
        with reused_memory():
            collect(args.data, args.out, args.sets, args.seeds)
    else:
        for line in choose(args.maps):
            print(json.dumps(line))


if __name__ == "__main__":
    main()
