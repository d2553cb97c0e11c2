"""Pictures of a trained model: ``synthesiser`` draws them, ``editing`` super-resolves and changes single bands.

No training code is imported here: a synthesiser holds generators and no discriminators.
"""
