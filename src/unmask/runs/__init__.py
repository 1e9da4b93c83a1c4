"""Where all parts meet: a recipe becomes a run."""
