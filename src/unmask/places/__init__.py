"""Finding where a picture was taken: vectors of a map's tiles, the field of their scores, and when to say "no fix"."""
