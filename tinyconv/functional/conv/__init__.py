"""Convolutions, and unfold and fold, which they stand on."""
