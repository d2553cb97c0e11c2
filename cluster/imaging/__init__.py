"""Images that people give and get.

``pictures`` makes arrays into pictures and PNG files, ``shown_images`` chooses what of clips and of many channels
people see, ``image_writing`` makes the files of images, ``natural`` reads images as their files hold them,
``low_images`` reads those that a model is to enlarge, and ``decomposition`` takes one apart into its bands.
"""
