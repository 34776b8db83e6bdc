"""Which extra brings a package that is not there, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping

EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("torch", "timm", "lightning_fabric", "safetensors"), "train"),
    "jinja2": "train",
    **dict.fromkeys(("highdicom", "dicomweb_client", "requests"), "dicom"),
    **dict.fromkeys(("onnx", "onnxscript", "nncf"), "export"),
    # scipy comes with train too, but whoever misses it may not need PyTorch
    **dict.fromkeys(("onnxruntime", "openvino", "scipy"), "runtime"),
    **dict.fromkeys(("ray", "pyarrow"), "ray"),
    "tensorboardX": "tensorboard",
    "mlflow": "mlflow",
    "nilearn": "demo",
    "anomalib": "anomalib",
    **dict.fromkeys(
        ("fastapi", "uvicorn", "pydantic", "python_multipart", "prometheus_client", "httpx"),
        "serve",
    ),
}
"""Top module of a package to the extra that brings it."""


def needs(what: str, extra: str) -> str:
    """The sentence for something that an extra brings.

    Args:
        what: that which needs it, with a capital only where it is a name.
        extra: name of the extra.
    """
    return f"{what} needs the extra {extra}: pip install 'scrd[{extra}]'"


def missing(error: ModuleNotFoundError) -> str | None:
    """The sentence for a package that is not there, or None if no extra brings it."""
    package = (error.name or "").split(".")[0]
    extra = EXTRAS.get(package)
    return None if extra is None else needs(f"the package {package}", extra)
