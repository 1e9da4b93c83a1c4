"""Runs: a recipe meets images, a machine and a folder."""
