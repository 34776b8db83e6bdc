"""The folders that scoring and evaluating leave: tables, heat maps, maps, DICOM objects."""
