"""Other tokenizers behind the same protocol."""
