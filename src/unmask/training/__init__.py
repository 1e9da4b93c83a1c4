"""The loop and what it needs; knows no objective and no image format."""
