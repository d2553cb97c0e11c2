"""The entry point of a training.

``train`` checks everything that can be refused before machines are taken, opens data and checkpoint, and makes attempt
after attempt until the last step is done or ``stop_signals`` end it; ``warm_start`` begins a run with the networks of
another one. Only ``launch`` and tests call it.
"""
