"""What is CUDA's alone."""
