"""What the commands share: flags, printed output, processes, signals."""
