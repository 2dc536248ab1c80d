"""The web page: components and their events. All assets come with Gradio; nothing is fetched."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr

from dove.baselines.cosines import Cosines
from dove.demo.drawing import CSS, DIVIDER, curve, hint, pair
from dove.demo.encoded import (
    Encoded,
    Point,
    Rebuilt,
    common_lengths,
    encode_photo,
    jpeg_at_equal_bytes,
    measure,
    read_photo,
    rebuild,
    write_examples,
)
from dove.errors import UserError
from dove.protocol import Tokenizer
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove

EXPIRE_AFTER = 3600  # Seconds after which uploads and rebuilt pictures are deleted
MAX_MEGAPIXELS = 50.0
FIRST_MEAN = 4  # Mean number of tokens a tile with which a photo is first shown
TILED, SQUARE = "whole photo, in tiles", "central square"
EMPTY = "Drop a photo above, or click an example."
QUERIES = ["", "the person", "the red car", "a dog"]
TOGGLE_MAP = "on => { document.documentElement.style.setProperty('--map', on ? 'block' : 'none'); }"


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """The models behind the page and the handlers of its events."""

    models: Mapping[str, Tokenizer]  # Tokenizers to choose from, by label; the page begins with the first
    folder: Path  # Where the examples are written

    def load(self, path: str | None, label: str, extent: str, query: str | None, mean: int | float) -> tuple[Any, ...]:
        """Encode a photo and show it: state, slider, pictures, line."""
        if path is None:
            return self.clear()
        model = self.models[label]
        asked = (query or "").strip() if isinstance(model, QDove) else ""
        photo = read_photo(path, MAX_MEGAPIXELS)
        encoded = encode_photo(model, photo, tiled=extent == TILED, query=asked)
        slider = gr.Slider(maximum=model.max_tokens, value=min(int(mean), model.max_tokens), interactive=True)
        return encoded, slider, *self.show(encoded, mean)

    def clear(self) -> tuple[Any, ...]:
        """Show the page without a photo."""
        return None, gr.Slider(interactive=False), hint(EMPTY), ""

    def show(self, encoded: Encoded | None, mean: int | float) -> tuple[str, str]:
        """Show a mean number of tokens."""
        if encoded is None:
            return hint(EMPTY), ""
        return _shown(encoded, rebuild(encoded, min(int(mean), encoded.model.max_tokens)))

    def auto(self, encoded: Encoded | None) -> tuple[Any, ...]:
        """Show each tile at its own end, with the slider at the mean."""
        if encoded is None:
            raise UserError("there is no photo yet; choose one first")
        rebuilt = rebuild(encoded, "auto")
        pictures, line = _shown(encoded, rebuilt)
        return gr.Slider(value=max(1, round(rebuilt.lengths.mean()))), pictures, f"{line} · lengths by `auto`"

    def curve(self, encoded: Encoded | None) -> Iterator[str]:
        """Measure the quality by number of tokens, and give what there is after every part."""
        if encoded is None:
            yield ""
            return
        lengths = common_lengths(encoded.model.max_tokens)
        lines: dict[str, list[Point]] = {"tokens": []}
        if cosines := self._cosines(encoded.model):
            others = encode_photo(cosines, encoded.photo, tiled=len(encoded.tiling) > 1)
            lines["cosines"] = [measure(others, length) for length in lengths]
        if encoded.values is not None:
            bytes_a_token = 2 * encoded.values.shape[2] * len(encoded.tiling)
            lines["JPEG of as many bytes"] = jpeg_at_equal_bytes(encoded.photo, bytes_a_token, lengths)
        auto = measure(encoded, "auto")
        for length in lengths:
            lines["tokens"].append(measure(encoded, length))
            yield curve(lines, auto)

    def _cosines(self, model: Tokenizer) -> Cosines | None:
        """Find the cosine transform with as many numbers a token, for a model that is another."""
        for other in self.models.values():
            if isinstance(other, Cosines) and isinstance(model, Dove):
                sizes = model.image_size, model.max_tokens, model.config.token_dim
                if sizes == (other.image_size, other.max_tokens, other.config.token_dim):
                    return other
        return None


def _shown(encoded: Encoded, rebuilt: Rebuilt) -> tuple[str, str]:
    """Give the pictures of a rebuilt photo and a line of Markdown."""
    total, tiles, width = int(rebuilt.lengths.sum()), rebuilt.lengths.size, rebuilt.numbers
    tile = (
        f"**{total / tiles:.1f} tokens a tile** · {total:,} for {tiles} tiles" if tiles > 1 else f"**{total} tokens**"
    )
    line = f"{tile} · **{rebuilt.psnr:.1f} dB** · {2 * total * width / 1000:,.1f} kB in fp16"
    return pair(encoded, rebuilt), line


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
    first, model = next(iter(demo.models.items()))
    examples = write_examples(demo.folder)
    with gr.Blocks(
        title="DOVE", analytics_enabled=False, delete_cache=(EXPIRE_AFTER, EXPIRE_AFTER), fill_width=False
    ) as page:
        gr.Markdown("# DOVE\nImages as sequences of tokens: more for what is busy, fewer for what is plain.")
        held = gr.State(None, time_to_live=EXPIRE_AFTER)
        with gr.Row(equal_height=True):
            upload = gr.File(label="Photo", file_count="single", file_types=["image"], height=120, min_width=280)
            samples = gr.Dataset(
                label="Examples",
                components=[gr.Image(visible=False)],
                samples=[[str(path)] for path in examples],
                type="index",
                elem_id="examples",
                min_width=280,
            )
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                pictures = gr.HTML(hint(EMPTY), elem_id="pictures", container=False)
                gr.HTML(DIVIDER, elem_id="divider")
            with gr.Column(scale=2, min_width=320):
                slider = gr.Slider(
                    1, model.max_tokens, FIRST_MEAN, step=1, label="Mean number of tokens a tile",
                    interactive=False, elem_id="tokens", buttons=[],
                )  # fmt: skip
                line = gr.Markdown(elem_id="line")
                with gr.Row():
                    auto = gr.Button("auto", elem_id="auto", size="md", scale=0, min_width=110)
                map_box = gr.Checkbox(False, label="Map of the tokens", elem_id="map", container=False)
                diagram = gr.HTML(elem_id="curve", min_height=40)
                extent = gr.Radio([TILED, SQUARE], value=TILED, label="What is rebuilt", elem_id="extent")
                choice = gr.Dropdown(list(demo.models), value=first, label="Model", elem_id="model")
                query = gr.Dropdown(
                    QUERIES, value="", label="Query: what the tokens shall describe first", allow_custom_value=True,
                    visible=isinstance(model, QDove), elem_id="query",
                )  # fmt: skip
        shown = [held, slider, pictures, line]
        loaded = [
            trigger(
                told(demo.load, demo.clear), [upload, choice, extent, query, slider], shown, show_progress_on=pictures
            )
            for trigger in (upload.change, choice.change, extent.change, query.change)
        ]
        for event in loaded:
            # Gradio must see a generator function, which a decorated method is not.
            event.then(lambda held: (yield from demo.curve(held)), held, diagram, trigger_mode="always_last")
        choice.change(lambda label: gr.Dropdown(visible=isinstance(demo.models[label], QDove)), choice, query)
        samples.click(lambda number: str(examples[number]), samples, upload, show_progress="hidden")
        # Of a drag only the last position counts, and no spinner flickers over the picture.
        slider.input(
            told(demo.show), [held, slider], [pictures, line],
            trigger_mode="always_last", show_progress="hidden", queue=False,
        )  # fmt: skip
        auto.click(told(demo.auto), held, [slider, pictures, line], show_progress="hidden")
        map_box.change(None, map_box, None, js=TOGGLE_MAP)
    return page


def launch(demo: Demo, *, host: str, port: int, max_megabytes: int) -> tuple[gr.Blocks, str]:
    """Serve the page in the background; return it, whose ``close`` ends it, and its address."""
    page = build(demo)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or None,
            max_file_size=max_megabytes * 10**6,
            css=CSS,
            theme=gr.themes.Default(primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
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
