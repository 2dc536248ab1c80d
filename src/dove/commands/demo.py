"""The command ``dove demo``: a web page to try a tokenizer on one's own photos."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from dove.errors import UserError
from dove.flags import parse_pairs, require_least

SLIDING = ("Dove", "QDove", "Cosines")
"""Types of tokenizers whose images may have any number of tokens; of the shipped ones the page's slider takes these alone."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Serve a web page: choose a photo, move a slider over its tokens. It needs no network."""

    model: str = "dove-tiny"
    """A shipped checkpoint, a checkpoint folder or a hub id; with a Q-DOVE the page has a box for queries."""
    compare: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL=CHECKPOINT...")] = ()
    """Further tokenizers of any kind to choose from, beside those that are shipped."""
    host: str = "127.0.0.1"
    """Address to listen at. 0.0.0.0 lets everybody in the network in: the page asks nobody for a password."""
    port: int = 7860
    """Port to listen at; 0 takes any that is free."""
    max_megabytes: int = 20
    """The largest file that may be uploaded."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port {self.port} is no port; pass 0 to 65535")
        require_least("--max-megabytes", self.max_megabytes)


def run(options: DemoOptions) -> None:
    """Serve the page until it is interrupted."""
    packages = {"gradio": "gradio", "matplotlib": "matplotlib", "skimage": "scikit-image"}
    if missing := [package for name, package in packages.items() if find_spec(name) is None]:
        raise UserError(
            f"dove demo needs {' and '.join(missing)}; install with: pip install 'dove-encoder[demo]', or run: make web"
        )
    from dove.checkpoint import read_model_type, shipped_checkpoints
    from dove.demo.page import Demo, serve
    from dove.runtime import load_model

    compared = parse_pairs(options.compare, "--compare", "LABEL=CHECKPOINT, such as TiTok=runs/titok")
    # The first is what the page begins with; a label of the user's own replaces a shipped name.
    tokenizers = [name for name, folder in shipped_checkpoints().items() if read_model_type(folder) in SLIDING]
    names = {options.model: options.model} | {name: name for name in tokenizers} | compared
    models = {label: load_model(source, options.device) for label, source in names.items()}
    with TemporaryDirectory(prefix="dove-demo-") as folder:
        demo = Demo(models=models, folder=Path(folder))
        serve(demo, host=options.host, port=options.port, max_megabytes=options.max_megabytes)
