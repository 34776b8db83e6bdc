"""Results as DICOM objects: structured report, segmentation, secondary capture, parametric map."""
