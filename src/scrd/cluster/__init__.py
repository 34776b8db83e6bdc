"""Scoring on more than this process: a Ray cluster, files in a bucket."""
