"""From a data set of normals to a trained, calibrated network."""
