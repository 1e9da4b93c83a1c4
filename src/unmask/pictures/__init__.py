"""Tensors to pictures."""
