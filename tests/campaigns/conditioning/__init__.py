"""Whether images show what their targets ask for: classes, captions, examples; ``make conditioning``."""
