"""The plug-in against a stand-in for lmms-eval's interface, which is no dependency."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from dove.errors import UserError
from dove.vlm.model import VisionLanguageModel


@dataclass
class Manifest:
    model_id: str
    simple_class_path: str


def test_lmms_eval_gets_answers(vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models", "lmms_eval.models.registry_v2")
    modules = {name: ModuleType(name) for name in names}
    modules["lmms_eval.api.model"].lmms = object  # type: ignore[attr-defined]
    modules["lmms_eval.models.registry_v2"].ModelManifest = Manifest  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(VisionLanguageModel, "from_pretrained", lambda *given, **options: vlm)
    from dove.vlm import lmms

    assert lmms.manifest().simple_class_path == f"{lmms.__name__}.{lmms.DoveVlm.__name__}"
    model = lmms.DoveVlm("any", num_tokens=3)
    model.task_dict = {"task": {"val": {7: Image.new("RGB", (16, 16), "red")}}}
    arguments = ("what color?", {"until": ["\n"], "max_new_tokens": 4}, lambda picture: [picture], 7, "task", "val")
    picture = Image.new("RGB", (16, 16), "red")
    expected = vlm.ask(picture, "what color?", 3, max_new_tokens=4).split("\n")[0]
    assert model.generate_until([SimpleNamespace(args=arguments)]) == [expected]
    with pytest.raises(UserError, match="single questions"):
        model.generate_until_multi_round([])
    with pytest.raises(UserError, match="generates answers"):
        model.loglikelihood([])
