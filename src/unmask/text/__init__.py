"""Masked prediction on text, for comparison: hidden characters as in BERT, the next character as in GPT.

Only `unmask words` uses this folder; both can be deleted together.
"""
