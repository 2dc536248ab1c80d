"""Pictures and bad files made on the spot."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def gradient(width: int = 24, height: int = 16) -> np.ndarray:
    """Red grows to the right, green downwards: every corner has a colour of its own."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    pixels[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return pixels


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file that Pillow would write."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A grey PNG that claims a size and holds one line of nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
