"""How far generated images are from real ones, measured without downloaded weights."""
