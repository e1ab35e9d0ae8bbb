"""The page of `python -m tinyconv draw`: a network at work on one's own drawing, and in training."""
