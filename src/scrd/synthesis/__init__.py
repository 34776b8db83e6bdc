"""Synthetic perturbations: simplex and Gaussian noise patches, drawn once and replayed."""
