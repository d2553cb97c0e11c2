"""Pictures of a trained model, and what can be said of given ones.

``synthesiser`` draws pictures, ``editing`` super-resolves, changes single bands and encodes real images, and
``likelihood`` says how likely images are; ``band_style`` and ``neural_style`` give images the style of others. No
training code is imported here: a synthesiser holds generators alone.
"""
