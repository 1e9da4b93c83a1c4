"""The mask studio: static files that show in a browser what runs rebuild. Nothing is computed on a server."""
