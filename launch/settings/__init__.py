"""Settings as people write them: YAML files, presets, ``key=value``, policies; and where results may be written.

The settings themselves, with bounds and descriptions, stand beside the code that they set
(:mod:`cluster.run.settings`). This package reads, merges and explains: every message names the key, the value and the
remedy.
"""
