"""Settings as people write them: YAML files, presets, ``key=value``, policies; and where results may be written."""
