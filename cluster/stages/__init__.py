"""One stage of a model in one process.

``host`` runs the calls of a stage and holds its state, ``snapshots`` keeps it on the local disk, ``lag_buffer`` keeps
the inputs that feedback will need, ``replicas`` says which actors share a stage, ``process_group`` lets them share a
batch (the only home of torch.distributed), ``malloc`` keeps freed pages. Nothing here knows which other stages there
are, or what executes them.
"""
