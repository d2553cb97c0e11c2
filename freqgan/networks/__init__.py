"""Networks: residual blocks, generators, discriminators, attention."""
