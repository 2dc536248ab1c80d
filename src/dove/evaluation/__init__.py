"""Measurements of trained tokenizers. Everything here sees ``encode`` and ``decode`` of the protocol alone."""
