"""Commands around training data."""
