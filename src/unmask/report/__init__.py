"""The report of a run: one page about what is in its folder; and trackers, which get the lines of its log."""
