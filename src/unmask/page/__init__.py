"""Pages of tabs (mask studio, classes, segmentation, neighbours, odd): static files that show in a browser what runs make of pictures.

Nothing is computed on a server.
"""
