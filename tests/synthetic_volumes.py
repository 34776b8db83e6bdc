"""Tiny heads as NIfTI volumes and as DICOM series."""

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

SLICES, ROWS, COLUMNS = 8, 40, 48
SPACING = (1.0, 1.5, 4.0)  # mm between columns, rows, slices
ORIGIN = (-20.0, -30.0, 10.0)  # LPS


def head(seed, lesion=False, gain=1.0):
    """(slices, rows, columns), float32: an uneven ellipsoid, as axial DICOM slices show it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[-1 : 1 : SLICES * 1j, -1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.3) ** 2 < 1
    volume = inside * (600 + 150 * x + 80 * np.sin(9 * y)) + rng.normal(0, 15, z.shape)
    if lesion:
        volume[3:6, 12:24, 14:28] *= 0.4 + 1.2 * rng.integers(0, 2, (3, 12, 14))
    return (gain * volume.clip(0).round()).astype(np.float32)


def write_nifti(path, volume):
    """In RAS+ voxel order, so that the cut has to turn it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dx, dy, dz = SPACING
    lps = np.array(
        [[dx, 0, 0, ORIGIN[0]], [0, dy, 0, ORIGIN[1]], [0, 0, dz, ORIGIN[2]], [0, 0, 0, 1]]
    )
    ras = np.diag([-1.0, -1, 1, 1]) @ lps
    image = nib.Nifti1Image(volume.transpose(2, 1, 0), ras)
    nib.save(nib.as_closest_canonical(image), path)


def write_dicom(folder, volume, number, modality="MR"):
    """One file a slice, in shuffled order of names; CT is stored with an intercept."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(number).permutation(SLICES)
    for k, name in enumerate(names):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        sop_class = {"MR": MRImageStorage, "CT": CTImageStorage}[modality]
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
        uid = f"1.2.3.{number}.1.{k + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.{number}.1"
        dataset.FrameOfReferenceUID = f"1.2.3.{number}.9"
        dataset.PatientID, dataset.PatientName = f"ID{number}", "Doe^Jane"
        dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200102", "101112", ""
        dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
        dataset.Modality, dataset.BodyPartExamined = modality, "HEAD"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        dataset.Manufacturer = "Acme Scanners"
        dataset.SeriesNumber, dataset.InstanceNumber = 1, int(name) + 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + SPACING[2] * k]
        dataset.PixelSpacing = [SPACING[1], SPACING[0]]
        dataset.SliceThickness = SPACING[2]
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 0
        stored = volume[k]
        if modality == "CT":
            dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
            stored = stored + 1024
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset.save_as(folder / f"{name:03d}", enforce_file_format=True)
