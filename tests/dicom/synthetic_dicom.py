"""Small DICOM files, a detector whose map is known, and results that fit them."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from scrd.data.intensity import Intensity
from scrd.data.source import Series
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Scored
from scrd.scoring.verdicts import SeriesResult, StudyResult, Verdict

STUDY = "1.2.826.0.1.3680043.8.498.1"
NAME, BIRTH = "Müller^Jürgen", "19480229"
SIZE = (24, 20)  # rows, columns
THRESHOLD = 0.5


@dataclass
class KnownDetector:
    """Its anomaly map is a rectangle that depends on the file and frame."""

    maps: dict
    fingerprint: str = "ab" * 32
    calibration: Calibration = field(
        default_factory=lambda: Calibration(
            scores=(0.0, 1.0),
            groups=(0, 1),
            false_alarm_rate=0.05,
            threshold=1.25,
            map_threshold=THRESHOLD,
            map_scale=(0.1, 0.7),
            pooling="top",
        )
    )
    preprocessing: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(intensity=Intensity(0, 255, 0, "grey"))
    )

    def source_map(self, scored):
        return self.maps[scored.source.path, scored.source.frame]


def _dataset(sop_class, uid, series_uid, modality):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, series_uid
    dataset.Modality = modality
    dataset.PatientName, dataset.PatientID = NAME, "4711-ß"
    dataset.PatientBirthDate, dataset.PatientSex = BIRTH, "M"
    dataset.StudyDate, dataset.StudyTime = "20240229", "101112"
    dataset.StudyID, dataset.AccessionNumber = "S1", "A1"
    dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.Manufacturer = "maker of scanners"
    return dataset


def _pixels(dataset, shape=SIZE, frames=None, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4000, (*(() if frames is None else (frames,)), *shape), np.uint16)
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    if frames is not None:
        dataset.NumberOfFrames = frames
    dataset.PixelData = values.tobytes()


def save(dataset, path):
    dataset.save_as(path, enforce_file_format=True)
    return path


def projection(number=0, *, modality="DX"):
    """A frontal chest image without geometry."""
    sop_class = {
        "DX": DigitalXRayImageStorageForPresentation,
        "CR": ComputedRadiographyImageStorage,
    }[modality]
    dataset = _dataset(sop_class, f"1.2.3.1.{number + 1}", "1.2.3.1", modality)
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    _pixels(dataset, seed=number)
    return dataset


def slices(count=5, *, modality="CT", orientation=(1, 0, 0, 0, 1, 0)):
    """A series of single-frame images along the normal of their planes."""
    sop_class = {"CT": CTImageStorage, "MR": MRImageStorage}[modality]
    series = {"CT": "1.2.3.2", "MR": "1.2.3.3"}[modality]
    step = 2.5 * np.cross(orientation[:3], orientation[3:])
    for i in range(count):
        dataset = _dataset(sop_class, f"{series}.{i + 1}", series, modality)
        dataset.InstanceNumber = i + 1
        dataset.FrameOfReferenceUID = f"{series}.99"
        dataset.PositionReferenceIndicator = ""
        dataset.ImageOrientationPatient = [float(x) for x in orientation]
        dataset.ImagePositionPatient = [float(x) for x in (-10, -20, 30) + i * step]
        dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.9], 2.5
        if modality == "CT":
            dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
        _pixels(dataset, seed=i)
        yield dataset


def enhanced(count=4):
    """A multi-frame CT volume in one file."""
    dataset = _dataset(EnhancedCTImageStorage, "1.2.3.4.1", "1.2.3.4", "CT")
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.3.4.99", ""
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.9], 2.5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i in range(count):
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, -20.0, 2.5 * i]
        content.DimensionIndexValues = [1, i + 1]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    _pixels(dataset, frames=count)
    return dataset


def spots(places, shape=SIZE, empty=()):
    """place → (H, W) float32 map with a block above the threshold, of its own in each."""
    maps = {}
    for i, place in enumerate(places):
        maps[place] = np.full(shape, 0.2, np.float32)
        if i not in empty:
            maps[place][2 + i : 6 + i, 3 : 8 + i] = 0.6 + 0.01 * i
    return maps


def result(uid, places, maps, *, study=STUDY, scores=None, doubts=(), problems=()):
    """A scored series; the score of the i-th image is (i + 1) / 7 where none are given."""
    series = Series(uid, study, "patient 1", tuple(places), problems=tuple(problems))
    scores = scores or [(i + 1) / 7 for i in range(len(places))]
    images = tuple(
        Scored(
            source=source,
            score=score,
            p_value=1 / (3 + i),
            flag=score > 1.25,
            statistics={},
            scale_weights=(1.0,),
            input_map=np.zeros((4, 4), np.float32),
            source_size=maps[source.path, source.frame].shape,
            doubts=tuple(doubts),
        )
        for i, (source, score) in enumerate(zip(series.sources, scores, strict=True))
    )
    top = max(scores)
    return SeriesResult(series, images, Verdict(top, 1 / 9, top > 1.25, len(images), "bonferroni"))


def study(*results, uid=STUDY):
    verdict = results[0].verdict
    return StudyResult(
        uid, results, Verdict(verdict.score, 1 / 3, verdict.flag, verdict.images, "calibrated")
    )


def stored(folder, datasets):
    """Write datasets as files; their places and a detector that knows their maps."""
    folder.mkdir(parents=True, exist_ok=True)
    places = []
    for i, dataset in enumerate(datasets):
        path = save(dataset, folder / f"{i}.dcm")
        frames = dataset.get("NumberOfFrames")
        places += [(path, None)] if frames is None else [(path, k) for k in range(int(frames))]
    return places


def scored_study(folder, datasets, **options):
    """Files, their result and the detector, for one series."""
    places = stored(folder, datasets)
    maps = spots(places, empty=options.pop("empty", ()))
    uid = datasets[0].SeriesInstanceUID
    return study(result(uid, places, maps, **options)), KnownDetector(maps)
