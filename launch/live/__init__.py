"""The live view of a run over HTTP, from what the run has stored alone; no Ray and no torch.

``run_view`` says how the run does, ``component_view`` how one component of it does, ``log_tail`` reads logs as they
grow, ``curves`` thins their numbers out, and ``application`` answers requests.
"""
