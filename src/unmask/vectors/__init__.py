"""Folders of vectors: a vector of each picture, in Parquet; search among them, and near-duplicates."""
