"""`unmask doctor`: is this run, or are these images, as they should be? Each check gives findings with a reason and a remedy."""
