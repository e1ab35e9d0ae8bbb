"""Tools for people who write gradients: checks of them, what is wrong with them, and their derivatives."""
