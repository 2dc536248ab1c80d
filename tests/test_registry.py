"""Names of models, in checkpoints and in the registry."""

import pytest

from dove.checkpoint import model_type
from dove.registry import MODELS, find_class, find_settings


@pytest.mark.parametrize("name", MODELS)
def test_a_name_leads_to_the_settings_that_checkpoints_call_so(name: str) -> None:
    assert model_type(find_settings(name)) == name
    assert callable(find_class(name))


def test_an_unknown_name_leads_to_no_class() -> None:
    assert find_class("DoveOfAnotherTime") is None
