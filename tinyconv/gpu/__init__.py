"""Code for CUDA only."""
