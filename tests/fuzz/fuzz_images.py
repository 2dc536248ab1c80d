"""Fuzzes the image loader: whatever the bytes, a picture or one line of complaint, within bounds of time and memory.

python tests/fuzz/fuzz_images.py -max_total_time=60 [libFuzzer options] [corpus folder]
"""

import io
import sys

import atheris
import numpy as np
from PIL import Image

with atheris.instrument_imports(include=["PIL", "dove.data.reading"]):
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        IcoImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    from dove.data import reading
    from dove.errors import UserError

reading.MAX_PIXELS = 1 << 22  # so that a run tries many pictures and not a few large ones
KINDS = {
    "PNG": {},
    "JPEG": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_deflate"},
    "PPM": {},
    "WEBP": {},
    "ICO": {},
}


def seeds() -> list[bytes]:
    """A small picture of every kind and of several modes."""
    found = []
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    for kind, options in KINDS.items():
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16"):
            buffer = io.BytesIO()
            try:
                Image.fromarray(pixels).convert("RGB").convert(mode).save(buffer, kind, **options)
            except (OSError, ValueError, KeyError):
                continue
            found.append(buffer.getvalue())
    return found


SEEDS = seeds()


def one(data: bytes) -> None:
    """A file of the fuzzer's own, or a seed with some of its bytes changed."""
    provider = atheris.FuzzedDataProvider(data)
    content = data
    if provider.ConsumeBool():
        whole = bytearray(SEEDS[provider.ConsumeIntInRange(0, len(SEEDS) - 1)])
        for _ in range(provider.ConsumeIntInRange(1, 8)):
            whole[provider.ConsumeIntInRange(0, len(whole) - 1)] = provider.ConsumeIntInRange(0, 255)
        content = bytes(whole[: provider.ConsumeIntInRange(1, len(whole))] if provider.ConsumeBool() else whole)
    try:
        image = reading.read_image(content, name="fuzz")
    except UserError as error:
        complaint = str(error)
        if "\n" in complaint or not complaint.startswith("fuzz: "):
            raise AssertionError(complaint) from error
        return
    assert image.mode == "RGB"
    assert image.width * image.height <= reading.MAX_PIXELS


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
