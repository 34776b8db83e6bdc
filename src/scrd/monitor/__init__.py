"""An eye on drift: whether a stream of images still looks like the normals that calibrate.

Numbers alone come in, of :mod:`scrd.outputs.score_folder`'s tables; nothing here imports PyTorch.
"""
