"""One file per command: parse, call `runs`, print."""
