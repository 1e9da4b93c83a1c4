"""Evaluating encoders: frozen features, probes, and fine-tuning with few labels."""
