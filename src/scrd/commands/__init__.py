"""The larger commands, a file each; :mod:`scrd.cli` has the small ones and puts them together."""
