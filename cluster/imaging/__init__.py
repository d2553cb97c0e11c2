"""Images that people give and get.

``pictures`` makes arrays into pictures and PNG files, ``natural`` reads images as their files hold them, ``low_images``
reads those that a model is to enlarge, and ``decomposition`` takes one apart into its bands.
"""
