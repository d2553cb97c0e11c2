"""Arrays of pixels to pictures: grids of images, figures of bands, plots. Nothing here reads a run."""
