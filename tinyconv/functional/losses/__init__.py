"""Losses, their reductions and their gradients."""
