"""Small ICC profiles, and what their numbers are in sRGB, computed apart from any colour management."""

import struct

import numpy as np

SRGB = ((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410))
DISPLAY_P3 = ((0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407))
ADOBE_RGB = ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457))
"""XYZ (rows) of red, green and blue (columns) under D50, as ICC profiles store them."""


def matrix_profile(primaries: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    """A display profile of three primaries and one gamma."""
    white = _xyz((0.9642, 1.0, 0.8249))
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": white, b"cprt": b"text" + bytes(4) + b"-\0\0\0"}
    for place, name in enumerate((b"r", b"g", b"b")):
        tags |= {name + b"XYZ": _xyz([row[place] for row in primaries]), name + b"TRC": curve}
    return _assemble(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    """A profile of grey levels with a gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    return _assemble(b"GRAY", {b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"kTRC": curve})


def in_srgb(colour: tuple[int, int, int], primaries: tuple[tuple[float, ...], ...], gamma: float) -> np.ndarray:
    """Levels (3,) of 255 in sRGB, those out of its gamut clipped."""
    stored = round(gamma * 256) / 256
    linear = np.linalg.solve(np.array(SRGB), np.array(primaries) @ (np.array(colour) / 255) ** stored).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _xyz(values: object) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _assemble(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(content))
        body += content
    header = struct.pack(">I4xI4s4s4s12x4s", offset + len(body), 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    header += bytes(28) + struct.pack(">iii", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + body
