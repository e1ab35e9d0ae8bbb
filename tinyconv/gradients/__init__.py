"""Tools for people who write gradients: checks of them, and their derivatives."""
