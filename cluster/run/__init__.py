"""What is stored about a run, and how it is opened.

``layout`` names every file, ``settings`` holds all settings, ``checkpoint_writer`` and ``checkpoints`` write and read
checkpoints, ``trained_model`` gives the generators of one, and of a cascade's base. ``data_source`` opens the images of
a run, ``teacher`` keeps what students learn of, ``model_registry`` versions of a model, ``feature_networks`` names what
features come from. Nothing here trains, scores or plans; logs and pictures for people are in ``launch.run_folder``.
"""
