"""What a model is, as far as it takes to draw a picture.

``settings`` says what is trained, ``plan`` which experts there are, ``needs`` what each waits for, ``step_graph`` the
calls of a step. ``chain`` puts bands together, ``noise`` draws noises, ``generators`` builds the networks of GANs,
``flow_expert`` samples those of flow matching. Nothing here trains.
"""
