"""One module for each command of the command line, of the same name: what it checks, calls and prints.

``systems`` and ``entrants`` are parts of ``compare``, ``quality_curves`` is one of ``evaluate``.

A command gets plain values from :mod:`launch.cli`, raises InputError for what cannot be used before it takes time, and
returns lines or an exit code. What two commands share belongs to a lower floor.
"""
