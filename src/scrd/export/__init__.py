"""Exported models: ONNX or OpenVINO folders, the check that they agree, and what runs them."""
