"""People and schedulers: the command line, settings files, progress, run folders, pages.

``cli`` wires the options of every command to ``commands``; what these show is in ``console``, ``pages`` and
``drawing``. What they do is in ``cluster`` and ``freqgan``; nothing here trains or recovers.
"""
