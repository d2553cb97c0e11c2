"""Programs beside the command line, each run by itself as ``python -m launch.tools.<name>``.

``demo_images`` cuts training images for the demo, ``create_rayjob`` starts a scheduled job on Kubernetes, ``reference``
writes the pages of commands and settings. Nothing else imports them.
"""
