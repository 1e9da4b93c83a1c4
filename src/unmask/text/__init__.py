"""The method on text: hidden characters as in BERT, the next character as in GPT. Deletable with its command."""
