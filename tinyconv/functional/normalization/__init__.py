"""Normalisation over the batch, over features and over groups of channels."""
