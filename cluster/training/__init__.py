"""The entry point of a training: what is checked before it, its attempts, its end."""
