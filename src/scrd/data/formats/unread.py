"""Image formats that are known and not read: so that such a file is named, and not passed over."""

from __future__ import annotations

from pathlib import PurePath

_SUFFIXES = {
    **dict.fromkeys((".mha", ".mhd"), "MetaImage"),
    **dict.fromkeys((".nrrd", ".nhdr"), "NRRD"),
    **dict.fromkeys((".mgh", ".mgz"), "FreeSurfer"),
    ".mnc": "MINC",
    ".img": "Analyze or two-file NIfTI",
    **dict.fromkeys((".npy", ".npz"), "NumPy"),
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
    ".avif": "AVIF",
    ".jxl": "JPEG XL",
    ".jxr": "JPEG XR",
    ".jls": "JPEG-LS",
    ".psd": "Photoshop",
    ".exr": "OpenEXR",
    ".hdf5": "HDF5",
    ".h5": "HDF5",
    ".svg": "SVG",
    ".tga": "Targa",
    ".ico": "icon",
    ".pcx": "PCX",
    ".sgi": "SGI",
    ".fits": "FITS",
    ".czi": "Zeiss",
    ".ndpi": "slide scanner",
    ".svs": "slide scanner",
    ".mrxs": "slide scanner",
    **dict.fromkeys((".avi", ".mp4", ".mov", ".mkv", ".wmv", ".mpg", ".mpeg"), "video"),
}
UNREAD_SUFFIXES = frozenset(_SUFFIXES)

_SIGNATURES = {
    b"NRRD000": "NRRD",
    b"ObjectType = Image": "MetaImage",
    b"\x93NUMPY": "NumPy",
    b"CDF\x01": "MINC",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"8BPS": "Photoshop",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"II\xbc": "JPEG XR",
    b"SIMPLE  =": "FITS",
}
_BRANDS = {b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF", b"avif": "AVIF"}  # ISO base media


def unread_format(head: bytes, name: str) -> str | None:
    """The name of an image format that is not read, told from the first bytes, else the suffix.

    Args:
        head: First bytes of the file.
        name: Of the file.
    """
    for signature, found in _SIGNATURES.items():
        if head.startswith(signature):
            return found
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video"
    return _SUFFIXES.get(PurePath(name).suffix.lower())
