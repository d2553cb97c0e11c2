"""Programs beside the command line, each run by itself as ``python -m launch.tools.<name>``."""
