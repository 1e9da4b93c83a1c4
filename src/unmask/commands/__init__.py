"""One file per command: parse flags, call `runs`, print results."""
