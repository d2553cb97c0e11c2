"""What a model is, as far as it takes to draw a picture.

``settings`` says what is trained, ``plan`` which GANs there are and what each sees, ``noise`` draws their noises,
``chain`` puts bands together, ``real_batch`` has those of real images, ``band_statistics`` normalises them,
``generators`` builds the networks, ``step_graph`` lists the calls of a step. Nothing here trains, and nothing knows
discriminators or optimisers.
"""
