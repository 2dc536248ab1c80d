"""Token generators by the kind of their tokens."""

from dove.config import DoveConfig
from dove.models.gaussian import GaussianTokenGenerator
from dove.models.token_generator import TokenGenerator

GENERATORS: dict[str, type[TokenGenerator]] = {"point": TokenGenerator, "gaussian": GaussianTokenGenerator}


def make_token_generator(config: DoveConfig) -> TokenGenerator:
    """Make the generator that ``config.token_kind`` names."""
    return GENERATORS[config.token_kind](config)
