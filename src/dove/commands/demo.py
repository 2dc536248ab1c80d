"""The command ``dove demo``: a web page to try a tokenizer on one's own photos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Serve a web page: drop a photo, move a slider over its tokens. It needs no network."""

    model: str = "dove-tiny"
    """A shipped checkpoint, a checkpoint folder or a hub id; with a Q-DOVE the page has a box for queries."""
    compare: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL=CHECKPOINT...")] = ()
    """Tokenizers of any kind to show beside it."""
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
        if self.max_megabytes < 1:
            raise UserError(f"--max-megabytes {self.max_megabytes} lets nothing in; pass at least 1")


def run(options: DemoOptions) -> None:
    """Serve the page until it is interrupted.

    Raises:
        UserError: if gradio is missing, a checkpoint cannot be loaded, or the address is taken.
    """
    require_gradio()
    from torch import nn

    from dove.demo.page import Demo, scratch_folder, serve
    from dove.demo.session import parse_compared
    from dove.registry import load_tokenizer
    from dove.runtime import load_model, select_device

    compared = parse_compared(options.compare)
    others = {}
    for label, source in compared.items():
        tokenizer = load_tokenizer(source)
        assert isinstance(tokenizer, nn.Module)
        others[label] = tokenizer.to(select_device(options.device))
    model = load_model(options.model, options.device)
    with scratch_folder() as folder:
        demo = Demo(name=options.model, model=model, others=others, folder=Path(folder))
        serve(demo, host=options.host, port=options.port, max_megabytes=options.max_megabytes)


def require_gradio() -> None:
    """Check that the packages of the page are installed.

    Raises:
        UserError: if gradio or matplotlib is not installed.
    """
    from importlib.util import find_spec

    missing = [name for name in ("gradio", "matplotlib") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"dove demo needs {' and '.join(missing)}; install with: pip install 'dove-encoder[demo]', or run: make web"
        )
