"""A real Orthanc, tiny studies to put into it, and a process that stands for a detector."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from scrd.archive.watch import Results
from scrd.dicom.uids import derived_uid

BINARY = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MODEL = "ab" * 32


def missing():
    """Why there can be no Orthanc here; empty where there can."""
    if BINARY is None:
        return "no Orthanc here (Debian package: orthanc)"
    return "" if PLUGIN.exists() else f"no {PLUGIN.name} here (Debian package: orthanc-dicomweb)"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class OrthancServer:
    """One of one's own; `refuse` is a Modality that it does not take."""

    def __init__(self, folder, refuse=None, **options):
        self.folder = folder
        folder.mkdir()
        if refuse:
            rule = f"return dicom.Modality ~= '{refuse}'"
            script = folder / "refuse.lua"
            script.write_text(f"function ReceivedInstanceFilter(dicom, origin, info) {rule} end")
            options["LuaScripts"] = [str(script)]
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.dicomweb = f"dicomweb://127.0.0.1:{port}/dicom-web"
        self.auth = None
        settings = {
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "HttpPort": port,
            "DicomPort": free_port(),
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StableAge": 1,
            "Plugins": [str(PLUGIN)],
            **options,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        self._process = None

    def start(self):
        with open(self.folder / "log.txt", "a") as log:
            self._process = subprocess.Popen(
                [BINARY, self.folder / "settings.json"], stdout=log, stderr=log
            )
        until(self._answers, 20)

    def _answers(self):
        assert self._process.poll() is None, (self.folder / "log.txt").read_text()
        try:
            return requests.get(f"{self.url}/system", auth=self.auth, timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self):
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def restart_empty(self):
        self.kill()
        shutil.rmtree(self.folder / "store")
        self.start()

    def push(self, *files):
        for file in files:
            answer = requests.post(
                f"{self.url}/instances", data=file.read_bytes(), auth=self.auth, timeout=10
            )
            answer.raise_for_status()

    def get(self, path):
        return requests.get(self.url + path, auth=self.auth, timeout=10).json()

    def wait_until_stable(self):
        until(lambda: all(s["IsStable"] for s in self.get("/studies?expand")), 20)

    def results(self, study):
        """SOP Instance UIDs of scrd's objects in a study, by QIDO."""
        client = DICOMwebClient(self.dicomweb.replace("dicomweb", "http", 1))
        return sorted(
            instance["00080018"]["Value"][0]
            for series in client.search_for_series(study, fields=["Manufacturer"])
            if series.get("00080070", {}).get("Value") == ["scrd"]
            for instance in client.search_for_instances(study, series["0020000E"]["Value"][0])
        )


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.05)


def _write(path, sop_class, *, study, series, sop, **attributes):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, sop
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "secret-17"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _pixels(pixels):
    rows, columns = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    return {
        "Rows": rows, "Columns": columns, "BitsAllocated": bits, "BitsStored": bits,
        "HighBit": bits - 1, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": int(pixels.dtype.kind == "i"), "PixelData": pixels.tobytes(),
    }  # fmt: skip


class Study:
    """A CT study of one series, written slice by slice."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.uid, self.series = generate_uid(), generate_uid()
        self.files = []

    def add(self, slices=1):
        """Write some more slices; returns their files."""
        first = len(self.files)
        for i in range(first, first + slices):
            pixels = np.full((16, 16), i - 1000, np.int16)
            self.files.append(
                _write(
                    self.folder / f"{self.uid[-8:]}-{i}.dcm", CTImageStorage, study=self.uid,
                    series=self.series, sop=generate_uid(), Modality="CT", Manufacturer="Acme",
                    InstanceNumber=i + 1, ImagePositionPatient=[0, 0, 2.5 * i],
                    ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1],
                    RescaleSlope=1, RescaleIntercept=0, **_pixels(pixels),
                )
            )  # fmt: skip
        return self.files[first:]

    def add_report(self):
        """Write what is not an image; returns its file."""
        return _write(
            self.folder / "report.dcm", BasicTextSRStorage, study=self.uid,
            series=generate_uid(), sop=generate_uid(), Modality="SR", Manufacturer="Acme",
        )  # fmt: skip


def result_uid(study, number=0, model=MODEL):
    return derived_uid("sc", study, model, str(number))


def write_result(path, study, value=0, number=0, model=MODEL, maker="scrd"):
    """A Secondary Capture as scrd writes it: its UIDs follow from study and model."""
    return _write(
        path, SecondaryCaptureImageStorage, study=study,
        series=derived_uid("sc series", study, model), sop=result_uid(study, number, model),
        Modality="OT", Manufacturer=maker, DeviceSerialNumber=model[:16], ConversionType="WSD",
        InstanceNumber=number + 1, **_pixels(np.full((8, 8), value, np.uint8)),
    )  # fmt: skip


class Detector:
    """Stands for `scrd score`: one or more Secondary Captures, which say how many images it saw.

    Attributes:
        seen: For each call the study and the number of its files.
    """

    def __init__(self, results=1, during=None, model=MODEL):
        self._model = model
        self.seen = []
        self._results = results
        self._during = during

    def __call__(self, folder, uid):
        files = sorted(folder.iterdir())
        assert {str(pydicom.dcmread(f).StudyInstanceUID) for f in files} == {uid}
        self.seen.append((uid, len(files)))
        if self._during:
            self._during()
        return Results(
            [
                write_result(folder.parent / f"{i}.dcm", uid, len(files), i, self._model)
                for i in range(self._results)
            ],
            words="not flagged, score 0.5, p 0.25, 2 images",
        )
