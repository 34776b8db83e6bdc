"""Reading images: decoding, intensity, geometry, manifests and the checks of a data set."""
