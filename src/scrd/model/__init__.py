"""The network: frozen teacher, bottleneck, student decoder, scale head."""

from scrd.model.scrd import SCRD, Outputs, build_model

__all__ = ["SCRD", "Outputs", "build_model"]
