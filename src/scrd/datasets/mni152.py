"""A demonstration data set: slices of a template brain, varied into a population of subjects.

The anatomy is the skull-stripped T1 average of the ICBM 152 non-linear template (2009, release a,
1 mm) in the form that the Python package nilearn ships inside its wheel. It is read from the
installed package when the set is made: nothing is downloaded and no part of it is kept in scrd.

Template: Fonov VS, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL, "Unbiased average
age-appropriate atlases for pediatric studies", NeuroImage 54 (2011) 313-327; Fonov VS, Evans AC,
McKinstry RC, Almli CR, Collins DL, "Unbiased nonlinear average age-appropriate brain templates from
birth to adulthood", NeuroImage 47 (2009) S102. Copyright (C) 1993-2004 Louis Collins, McConnell
Brain Imaging Centre, Montreal Neurological Institute, McGill University, who permit use, copying,
modification and distribution for any purpose without fee as long as that notice stays with the
copies; every folder made here carries it. nilearn itself is under the 3-clause BSD licence.

The lesions are simulated, and the set is meant to be easy: how much the subjects differ and how
far the lesions stand out were chosen (on seed 1) so that a detector trained for minutes on a CPU
can find them, while image statistics such as mean, spread, sharpness or file size cannot. The set
shows that an installation works from end to end; a figure measured on it says nothing about
patients.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from scrd.datasets.lesions import Array, draw_lesion, paint, smooth_noise
from scrd.errors import ScrdError
from scrd.system.extras import needs
from scrd.system.progress import Advance, counting

SETTINGS_FILE = "mni152.json"
NOTICE = (
    "Made by scrd from the ICBM 152 T1 template shipped with nilearn. Copyright (C) 1993-2004 "
    "Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill "
    "University. The subjects are deformed copies of one average brain; the lesions are simulated."
)
# raised with every change that alters a pixel, so that an old folder is not taken for a new one
RECIPE = 1

FIELD_OF_VIEW = 208.0  # mm, both sides of the square image
SLICES_PER_SUBJECT = 2
SLICE_SPACING = 3.0  # mm
CENTRE = (0.0, -17.0, 11.0)  # mm, template point at the middle of an average subject's image
Z_RANGE = 5.0  # mm, the subjects' slices lie within this distance of CENTRE
SLAB = (-15.0, 40.0)  # mm, what is kept of the template: Z_RANGE plus tilt, scale and deformation
DEFORMATION = ((70.0, 2.2), (32.0, 0.8))  # lattice spacing and amplitude, mm
# T1 intensities of the template: ventricle, cortex, white matter
TISSUES = (0.33, 0.66, 0.88)


class DemoDataError(ScrdError):
    """The demonstration set cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Template:
    """A slab of the template around the lateral ventricles.

    Attributes:
        t1: (X, Y, Z) float32 in [0, 1], 1 mm voxels, 0 outside the brain.
        slope: (3, X, Y, Z) float32, per mm, gradient of a smoothed map of the ventricles.
        origin: position in mm of voxel (0, 0, 0).
    """

    t1: Array
    slope: Array
    origin: tuple[float, float, float]


def load_template() -> Template:
    """Read the slab of the template from the installed nilearn.

    Returns:
        The template slab.

    Raises:
        DemoDataError: nilearn is not installed; the message says what to install.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ModuleNotFoundError as error:
        raise DemoDataError(
            needs("the demonstration, whose template brain is nilearn's,", "demo")
        ) from error
    image = load_mni152_template(resolution=1)
    x, y, z = (float(v) for v in image.affine[:3, 3])
    bottom, top = (int(v - z) for v in SLAB)
    t1 = np.asarray(image.dataobj, dtype=np.float32)[..., bottom:top]
    depth = ndimage.distance_transform_edt(t1 > 0)
    deep_fluid = (t1 < np.mean(TISSUES[:2])) & (depth > 25)
    ventricles = ndimage.gaussian_filter(deep_fluid.astype(np.float32), 5.0)
    return Template(t1, np.stack(np.gradient(ventricles)), (x, y, z + bottom))


def _grid(size: int, height: float) -> tuple[Array, Array, Array]:
    """Positions in mm of a subject's slices (around `height`), rows (back to front) and columns."""
    side = ((np.arange(size) + 0.5) / size - 0.5) * FIELD_OF_VIEW
    slices = (np.arange(SLICES_PER_SUBJECT) - (SLICES_PER_SUBJECT - 1) / 2) * SLICE_SPACING + height
    return slices.astype(np.float32), -side.astype(np.float32), side.astype(np.float32)


def _anatomy(
    rng: np.random.Generator, template: Template, points: tuple[Array, Array, Array]
) -> Array:
    """Where in the template each pixel of one subject lies: (3, S, H, W), x y z in voxels."""
    z, y, x = np.meshgrid(*points, indexing="ij")
    place = np.stack([x, y, z])
    for lattice, amplitude in DEFORMATION:
        place += np.stack([amplitude * smooth_noise(rng, points, lattice) for _ in "xyz"])

    turn, roll, pitch = np.radians(rng.normal(0, (1.5, 0.7, 1.0)))
    scale = 1 + rng.normal(0, 0.015) + rng.normal(0, 0.012, 3)
    rotate = np.array(
        [
            [np.cos(turn), -np.sin(turn), 0],
            [np.sin(turn), np.cos(turn), 0],
            [np.sin(roll), np.sin(pitch), 1],
        ]
    )
    shift = np.array(CENTRE) + rng.normal(0, (1.0, 1.0, 0.0)) - template.origin
    place = np.einsum("ij,jzyx->izyx", rotate * scale, place) + shift[:, None, None, None]

    # sampling further up the slope makes the ventricles wider, down it narrower
    widen = rng.uniform(-15, 30) * (1 + rng.normal(0, 0.15) * np.sign(x))
    slope = np.stack([ndimage.map_coordinates(s, place, order=1) for s in template.slope])
    return np.asarray(place + widen * slope, dtype=np.float32)


def _acquire(rng: np.random.Generator, tissue: Array, points: tuple[Array, Array, Array]) -> Array:
    """What a scanner makes of the tissue: contrast, bias field, blur, Rician noise, 8 bit."""
    gain = rng.normal(0.74, 0.04)
    levels = gain * np.array([0, rng.uniform(0.24, 0.32), rng.uniform(0.66, 0.71), 1.0])
    levels = np.append(levels, 1.3 * gain)
    signal = np.interp(tissue, (0, *TISSUES, 1.2), levels)
    signal *= 1 + 0.01 * smooth_noise(rng, points, 5) + 0.05 * smooth_noise(rng, points, 90)
    blur = rng.uniform(0.6, 0.9) / (FIELD_OF_VIEW / tissue.shape[-1])
    signal = ndimage.gaussian_filter(signal, (0, blur, blur))
    sigma = rng.uniform(0.004, 0.008)
    real, imaginary = rng.normal(0, sigma, (2, *signal.shape))
    signal = np.hypot(signal + real, imaginary) * (tissue > 0)
    return np.asarray(np.clip(signal, 0, 1), dtype=np.float32)


def make_subject(
    template: Template, index: int, *, lesion: bool, size: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Make the slices of one subject; the same (seed, index) is the same head with and without.

    Args:
        template: from :func:`load_template`.
        index: the subject's number.
        lesion: whether a lesion is simulated.
        size: side of the square slices in pixels.
        seed: seed of the data set.

    Returns:
        images (S, size, size) uint8, 0 outside the brain, front of the head up, and
        masks (S, size, size) bool, true in the lesion and its oedema; all false without a lesion.
    """
    shape_rng, lesion_rng, scan_rng = (
        np.random.default_rng(s) for s in np.random.SeedSequence([seed, index]).spawn(3)
    )
    points = _grid(size, shape_rng.uniform(-Z_RANGE, Z_RANGE))
    place = _anatomy(shape_rng, template, points)
    tissue = ndimage.map_coordinates(template.t1, place, order=1)
    mask = np.zeros(tissue.shape, dtype=bool)
    if lesion:
        drawn = draw_lesion(lesion_rng, tissue, points)
        pushed = ndimage.map_coordinates(template.t1, place + drawn.push, order=1)
        tissue = paint(np.where(tissue > 0, pushed, 0), drawn)
        mask = drawn.mask
    signal = _acquire(scan_rng, tissue, points)
    return np.round(signal * 255).astype(np.uint8), mask


@dataclass(frozen=True)
class _Settings:
    train: int
    test_normal: int
    test_lesion: int
    size: int
    seed: int
    recipe: int = RECIPE


def make_mni152(
    folder: Path,
    *,
    train: int = 400,
    test_normal: int = 100,
    test_lesion: int = 100,
    size: int = 160,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Make the demonstration set as a data folder of scrd, whole or not at all.

    It holds ``train/normal``, ``test/normal``, ``test/lesion`` and ``masks/lesion`` (255 in the
    lesion) as 8-bit grey PNG, ``split.csv`` (path, label, class, split, patient, mask) and
    ``mni152.json`` (settings and copyright notice). Every subject gives two neighbouring slices and
    is in one of the three parts only. A finished folder with the same settings is left as it is.

    Args:
        folder: where the set is to be; must be absent, empty, or a finished set of these settings.
        train: number of normal training slices.
        test_normal: number of normal test slices.
        test_lesion: number of test slices with a lesion.
        size: side of the square slices in pixels; the field of view is 208 mm.
        seed: the set is a function of this seed and of the numbers above.
        progress: tell on standard error how far the work is.

    Returns:
        `folder`.

    Raises:
        DemoDataError: the folder holds something else, or nilearn is not installed.
    """
    folder = Path(folder)
    settings = _Settings(train, test_normal, test_lesion, size, seed)
    if folder.exists() and any(folder.iterdir()):
        if _settings_of(folder) == asdict(settings):
            return folder
        raise DemoDataError(
            f"{folder}: holds something other than this demonstration set; "
            "delete it or choose another folder"
        )
    template = load_template()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        total = settings.train + settings.test_normal + settings.test_lesion
        with counting("drawing", total, progress) as advance:
            _write(work, template, settings, advance)
        work.chmod(0o755)  # mkdtemp's folder is the owner's alone
        if folder.exists():
            folder.rmdir()
        os.replace(work, folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return folder


def _settings_of(folder: Path) -> object:
    """The settings that a finished folder records, None where there are none."""
    try:
        return json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(root: Path, template: Template, settings: _Settings, advance: Advance) -> None:
    """Write images, masks, manifest and settings into an empty folder."""
    parts = (
        ("train", "normal", settings.train),
        ("test", "normal", settings.test_normal),
        ("test", "lesion", settings.test_lesion),
    )
    rows = []
    subject = 0
    for split, kind, count in parts:
        (root / split / kind).mkdir(parents=True)
        lesion = kind == "lesion"
        if lesion:
            (root / "masks" / kind).mkdir(parents=True)
        for first in range(0, count, SLICES_PER_SUBJECT):
            subject += 1
            images, masks = make_subject(
                template, subject, lesion=lesion, size=settings.size, seed=settings.seed
            )
            kept = range(min(SLICES_PER_SUBJECT, count - first))
            for number in kept:
                name = f"sub-{subject:04d}_slice-{number}.png"
                path, mask = f"{split}/{kind}/{name}", f"masks/{kind}/{name}" if lesion else ""
                Image.fromarray(images[number]).save(root / path)
                if lesion:
                    Image.fromarray(masks[number].astype(np.uint8) * 255).save(root / mask)
                rows.append((path, int(lesion), kind, split, f"sub-{subject:04d}", mask))
            advance(len(rows))
    with (root / "split.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "class", "split", "patient", "mask"))
        writer.writerows(rows)
    record = {"notice": NOTICE, "settings": asdict(settings)}
    (root / SETTINGS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
