"""Arrays of pixels to pictures: ``grids`` of images, ``figures`` of bands, ``scaling`` plots.

Functions of arrays and models alone: nothing here reads or writes a run.
"""
