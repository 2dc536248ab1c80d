"""One module for each command: a dataclass of its options and ``run(options)``."""
