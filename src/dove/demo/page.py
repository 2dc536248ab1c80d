"""The web page: components and their events. All assets come with Gradio; nothing is fetched."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from PIL import Image

from dove.demo.session import (
    Prefixes,
    compare,
    describe,
    read_photo,
    rebuild_prefixes,
    rebuild_tiles,
    write_tokens,
)
from dove.errors import UserError
from dove.protocol import Tokenizer
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove

EXPIRE_AFTER = 3600
"""Seconds after which uploads and rebuilt pictures are deleted."""
MAX_MEGAPIXELS = 50.0
CSS = """
.gradio-container { max-width: 1080px !important; margin: auto; }
.square img { width: 100% !important; height: 100% !important; object-fit: contain; }
"""
EMPTY = "Drop a photo: its central square is rebuilt from as many tokens as you choose."


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """State that the server keeps for one visitor."""

    name: str
    """Name of the uploaded file."""
    photo: Image.Image
    query: str
    main: Prefixes
    others: dict[str, Prefixes]


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """The models behind the page and the handlers of its events.

    Attributes:
        name: the checkpoint of ``model``.
        model: the tokenizer.
        others: tokenizers to compare with, by label.
        folder: where files to download are written.
    """

    name: str
    model: Dove
    others: Mapping[str, Tokenizer]
    folder: Path

    def load(self, path: str | None, query: str | None) -> tuple[Any, ...]:
        """Load a photo or another query, with the slider at the model's own length. A hidden query box gives None."""
        if path is None:
            return (None, gr.Slider(value=1, interactive=False), None, *self._clear())
        photo, query = read_photo(path, MAX_MEGAPIXELS), (query or "").strip()
        held = Held(
            name=Path(path).name,
            photo=photo,
            query=query,
            main=rebuild_prefixes(self.model, photo, query),
            others={label: rebuild_prefixes(other, photo) for label, other in self.others.items()},
        )
        slider = gr.Slider(value=held.main.auto, interactive=True)
        return held, slider, held.main.original, *self.show(held, held.main.auto)

    def show(self, held: Held | None, num_tokens: int | float) -> tuple[Any, ...]:
        """Show a length; only the picture of the comparison is computed."""
        if held is None:
            return self._clear()
        num_tokens = int(num_tokens)
        beside = compare({self.name: held.main, **held.others}, num_tokens) if held.others else None
        return held.main.pictures[held.main.at(num_tokens)], describe(held.main, num_tokens), beside

    def auto(self, held: Held | None) -> int:
        """Return the model's own length."""
        return _require(held).main.auto

    def reach(self, held: Held | None, decibels: int | float | None) -> int:
        """Return the fewest tokens that reach a PSNR in dB."""
        if decibels is None:
            raise UserError("no quality is given; write a number of dB, such as 25")
        return _require(held).main.fewest(float(decibels))

    def tiles(self, held: Held | None, request: str) -> tuple[Any, ...]:
        """Rebuild the whole photo in tiles."""
        held = _require(held)
        done = rebuild_tiles(self.model, held.photo, request, held.query)
        note = " · scaled down first" if done.scaled else ""
        line = f"**{done.tokens:,} tokens** for {done.tiles} tiles · **{done.psnr:.1f} dB**{note}"
        return gr.Image(done.picture, visible=True), gr.Image(done.rebuilt, visible=True), line

    def save(self, held: Held | None, num_tokens: int | float) -> Any:
        """Write the tokens as a file to download."""
        held = _require(held)
        path = write_tokens(self.folder, self.name, held.main, int(num_tokens), held.name)
        return gr.File(value=str(path), visible=True)

    def _clear(self) -> tuple[Any, ...]:
        return None, EMPTY, None


def _require(held: Held | None) -> Held:
    if held is None:
        raise UserError("there is no photo yet; drop one first")
    return held


def told(event: Callable[..., Any], otherwise: Callable[[], Any] = gr.skip) -> Callable[..., Any]:
    """Wrap an event so that a ``UserError`` is shown on the page, with the outputs of ``otherwise``, by default unchanged."""

    def run(*arguments: Any) -> Any:
        try:
            return event(*arguments)
        except UserError as error:
            # A gr.Error would cover every output with a label of its own.
            gr.Warning(str(error), duration=None, title="That does not work")
            return otherwise()

    return run


def build(demo: Demo) -> gr.Blocks:
    """Build the page of a demo."""
    with gr.Blocks(
        title="DOVE", analytics_enabled=False, delete_cache=(EXPIRE_AFTER, EXPIRE_AFTER), fill_width=False
    ) as page:
        gr.Markdown(f"# DOVE\nImages as variable-length sequences of tokens. Model: `{demo.name}`.")
        held = gr.State(None, time_to_live=EXPIRE_AFTER)
        with gr.Row(equal_height=True):
            upload = gr.File(label="Photo", file_count="single", file_types=["image"], height=250, scale=2)
            original = _square("What the model sees", "original")
            rebuilt = _square("Rebuilt", "rebuilt")
        line = gr.Markdown(EMPTY, elem_id="line")
        slider = gr.Slider(
            1, demo.model.max_tokens, value=1, step=1, label="Tokens", interactive=False, elem_id="tokens"
        )
        with gr.Row(equal_height=True):
            auto = gr.Button("auto", elem_id="auto")
            decibels = gr.Number(25, label="Quality in dB", minimum=1, maximum=100, min_width=120)
            reach = gr.Button("reach that quality", elem_id="reach")
            save = gr.Button("tokens as a file", elem_id="save")
        tokens_file = gr.File(
            label="For `dove decode tokens`, once unpacked", visible=False, interactive=False, elem_id="file"
        )
        query = gr.Textbox(
            label="Query: what the tokens shall describe first",
            placeholder="the red car, then Enter; empty for the whole image",
            visible=isinstance(demo.model, QDove),
            max_length=200,
            elem_id="query",
        )
        with gr.Accordion("Side by side", open=True, visible=bool(demo.others)):
            beside = gr.Image(show_label=False, interactive=False, elem_id="beside", format="png", buttons=[])
        shown = [rebuilt, line, beside]
        for trigger in (upload.change, query.submit):
            trigger(told(demo.load, lambda: demo.load(None, None)), [upload, query], [held, slider, original, *shown])
        # Of a drag only the last position counts, and no spinner flickers over the picture.
        slider.change(
            told(demo.show), [held, slider], shown, trigger_mode="always_last", show_progress="hidden", queue=False
        )
        auto.click(told(demo.auto), held, slider, show_progress="hidden")
        reach.click(told(demo.reach), [held, decibels], slider, show_progress="hidden")
        save.click(told(demo.save), [held, slider], tokens_file)
        _tiles(demo, held)
    return page


def _square(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        elem_id=name,
        elem_classes="square",
        format="png",
        height=250,
        scale=2,
        buttons=[],
    )


def _tiles(demo: Demo, held: gr.State) -> None:
    with gr.Accordion("The whole photo, in tiles of their own lengths", open=True):
        with gr.Row(equal_height=True):
            request = gr.Textbox("budget 16", label="Length: 16, auto, psnr>=25, budget 16 ...", max_length=60, scale=3)
            rebuild = gr.Button("rebuild the photo", elem_id="tile", scale=1)
        summary = gr.Markdown()
        picture = gr.Image(
            label="Where the tokens went", interactive=False, visible=False, elem_id="map", format="png", buttons=[]
        )
        whole = gr.Image(
            label="Rebuilt, at full size", interactive=False, visible=False, format="png", buttons=["download"]
        )
        for trigger in (rebuild.click, request.submit):
            trigger(told(demo.tiles), [held, request], [picture, whole, summary])


def launch(demo: Demo, *, host: str, port: int, max_megabytes: int) -> tuple[gr.Blocks, str]:
    """Serve the page in the background.

    Args:
        demo: models and handlers of the page.
        host: address to listen at.
        port: port to listen at; 0 for any that is free.
        max_megabytes: the largest upload.

    Returns:
        The page, whose ``close`` ends it, and its address.

    Raises:
        UserError: if the address is taken.
    """
    page = build(demo)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or None,
            max_file_size=max_megabytes * 10**6,
            css=CSS,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            share=False,
            ssr_mode=False,
            quiet=True,
            show_error=True,
            footer_links=[],
            enable_monitoring=False,
            state_session_capacity=32,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}:{port} ({error}); pass another --port, or 0 for a free one"
        ) from error
    return page, address


def serve(demo: Demo, *, host: str, port: int, max_megabytes: int) -> None:
    """Serve the page until it is interrupted."""
    page, address = launch(demo, host=host, port=port, max_megabytes=max_megabytes)
    print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for files to download, which lasts as long as the page is served."""
    return tempfile.TemporaryDirectory(prefix="dove-demo-")
