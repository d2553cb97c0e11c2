"""What is stored about a run, and how it is opened.

``layout`` names every file, ``settings`` holds all settings, ``checkpoint_writer`` and ``checkpoints`` write and read
checkpoints, ``data_source`` opens the images of a run, ``model_registry`` keeps the versions of a model that is
retrained. Nothing here trains, scores or plans; logs and pictures for people are in ``launch.run_folder``.
"""
