"""The parts of the tokenizers as torch modules, one implementation each for training and inference."""
