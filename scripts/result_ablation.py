"""Section of the ablation's page: tables of its rows, each beside the cosine transform's."""

import json
from pathlib import Path
from typing import Any

from dove.paper.bench import load_rows
from dove.paper.claims_page import markdown_table
from dove.tokens import format_token_count

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results" / "ablation"
NAMES = {"squeezenet": "SqueezeNet", "efficientnet": "EfficientNet-Lite0", "mobilenet": "MobileNetV2"}
FIXED = "fixed@auto-mean"  # Row of as many tokens for every photo as `auto` takes on average
LENGTHS = (1, 4, 8, 16)
TRIVIAL = "cosines"

Report = dict[str, Any]


def read_ablation(folder: Path = FOLDER) -> dict[str, dict[str, Report]]:
    """Read the reports by row and kind; a row of a second seed stands in a folder ``NAME-seed-1``."""
    names = [name for row in load_rows(comparison="ablation") for name in (row.name, f"{row.name}-seed-1")]
    return {name: read_row(folder / name) for name in names if (folder / name).is_dir()}


def read_row(folder: Path) -> dict[str, Report]:
    """Read the reports of a row by kind."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.json"))}


def ablation(reports: dict[str, Report]) -> str:
    """Tables of quality, distances, lengths and linear probes."""
    rows = reports["ablation"]
    return "\n\n".join((qualities(rows), distances(rows), meanings(rows)))


def told_row(name: str, row: dict[str, Report]) -> str:
    """Label of a row, with its seed if it is the second."""
    label = row["reconstruction"]["rows"][0]["model"]
    return f"{label}, second seed" if name.endswith("-seed-1") else label


def by_length(row: dict[str, Report]) -> dict[Any, Report]:
    """Reconstructions of a row by number of tokens."""
    return {line["num_tokens"]: line for line in row["reconstruction"]["rows"]}


def told_psnr(row: Report) -> str:
    """PSNR in dB; exact where nothing but rounding is lost."""
    return "exact" if row["psnr"] > 90 else f"{row['psnr']:.2f}"


def uses(row: Report, network: str) -> bool:
    """Tell whether the losses of a row's model used a network."""
    return any(used.startswith(network) for used in row.get("loss_networks", "").split("+"))


def qualities(rows: dict[str, dict[str, Report]]) -> str:
    """Table of PSNR by length, and at the length of each photo's own."""
    lengths = (*LENGTHS, 32, 64)
    head = ["row", *(format_token_count(k) for k in lengths), "`auto`, mean tokens", "spread at `auto`"]
    lines = []
    for name, row in rows.items():
        found = by_length(row)
        auto, same = found.get("auto"), found.get(FIXED)
        told = f"{told_psnr(auto)} at {auto['mean_length']:.1f}" if auto else ""
        spread = f"{auto['psnr_std']:.2f} of {same['psnr_std']:.2f}" if auto and same else ""
        lines.append([told_row(name, row), *(told_psnr(found[k]) for k in lengths), told, spread])
    told = "PSNR in dB; at `auto` also its standard deviation over photos, beside that of one length for all:"
    return f"{told}\n\n{markdown_table(head, lines)}"


def distances(rows: dict[str, dict[str, Report]]) -> str:
    """Table of perceptual and Frechet distances as shares of the cosines'; a star where the row's losses used the network."""
    trivial = by_length(rows[TRIVIAL])
    places = " / ".join(map(str, LENGTHS))
    head = ["row", *(f"{label} at {places}" for label in NAMES.values()), f"Frechet by MobileNetV2 at {places}"]
    lines = []
    for name, row in rows.items():
        if name == TRIVIAL:
            continue
        found = by_length(row)
        cells = []
        for column in (*(f"perceptual_{network}" for network in NAMES), "fd_mobilenet"):
            star = "\\*" if uses(found[1], column.partition("_")[2]) else ""
            cells.append(" / ".join(f"{found[k][column] / trivial[k][column]:.2f}" for k in LENGTHS) + star)
        lines.append([told_row(name, row), *cells])
    told = "Distance to the photo as a share of the cosines' (\\*: the row's losses used this network):"
    return f"{told}\n\n{markdown_table(head, lines)}"


def meanings(rows: dict[str, dict[str, Report]]) -> str:
    """Table of linear probes on CIFAR-10, and of what lengths follow."""
    head = ["row", "8 tokens (%)", "16 tokens (%)", "64 tokens (%)", "best hidden layer (%)", "Pearson, length"]
    lines = []
    for name, row in rows.items():
        found = {(line["layer"], line["num_tokens"]): line["top1"] for line in row["probe"]["rows"]}
        tokens = [f"{found['tokens', k]:.1f}" for k in (8, 16, 64)]
        hidden = [line for line in row["probe"]["best_layers"] if isinstance(line["layer"], int)]
        lengths = row["lengths"]["rows"][0]["pearson_log"] if "lengths" in row else None
        lines.append(
            [told_row(name, row), *tokens, f"{hidden[0]['top1']:.1f} (layer {hidden[0]['layer']})" if hidden else ""]
            + [f"{lengths:.2f}" if lengths is not None else ""]
        )
    told = "Linear probes on CIFAR-10, and Pearson correlation of `auto` with the logarithm of Laplacian variance:"
    return f"{told}\n\n{markdown_table(head, lines)}"
