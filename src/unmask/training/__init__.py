"""The training loop and its parts; independent of objectives and image formats."""
