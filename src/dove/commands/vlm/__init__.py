"""Commands of the language model that sees through the tokens."""
