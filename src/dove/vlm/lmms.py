"""Plug-in for lmms-eval, which imports it through its entry points.

python -m lmms_eval --model dove_vlm --model_args pretrained=FOLDER,num_tokens=auto --tasks vqav2_val,gqa
"""

from typing import Any

import torch
from lmms_eval.api.model import lmms

from dove.data.progress_bar import ProgressBar
from dove.errors import UserError
from dove.vlm.model import VisionLanguageModel

DEFAULT_ANSWER_WORDS = 32


class DoveVlm(lmms):
    """A saved vision-language model as lmms-eval's simple kind of model: pictures and a text in, a text out.

    Args:
        pretrained: a folder of dove vlm train, or a hub id.
        num_tokens: length policy; empty for the model's own.
        device: cpu, cuda, ...; auto takes a GPU where there is one.
        batch_size: accepted, as lmms-eval passes it; questions are answered one by one.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        num_tokens: int | str = "",
        device: str = "auto",
        batch_size: int | str = 1,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.model = VisionLanguageModel.from_pretrained(pretrained, device=device or "auto")
        self.num_tokens = num_tokens or None

    @torch.no_grad()
    def generate_until(self, requests: list[Any]) -> list[str]:
        """The answers, cut where a task says."""
        answers = []
        for request in ProgressBar(requests, desc="answers", unit="question"):
            context, settings, to_pictures, number, task, split = request.args
            pictures = to_pictures(self.task_dict[task][split][number])
            words = settings.get("max_new_tokens", DEFAULT_ANSWER_WORDS)
            said = self.model.ask(pictures, context, self.num_tokens, max_new_tokens=words)
            ends = settings.get("until") or []
            for end in [ends] if isinstance(ends, str) else ends:
                said = said.split(end)[0] if end else said
            answers.append(said)
        return answers

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Not there: a task of several rounds needs a conversation."""
        raise UserError("dove_vlm answers single questions; choose tasks of one round")

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not there: Table 9's tasks generate."""
        raise UserError("dove_vlm generates answers; choose tasks with generate_until")


def manifest() -> Any:
    """Make the manifest that lmms-eval's entry point ``lmms_eval.models`` asks for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="dove_vlm", simple_class_path="dove.vlm.lmms.DoveVlm")
