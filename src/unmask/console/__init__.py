"""Shared parts of the commands: flags, printed output, processes and signals."""
