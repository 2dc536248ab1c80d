"""Sections of the pages that are written from the reports about the shipped models."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result_ablation import FIXED, NAMES, ablation, told_psnr, uses

from dove.paper.claims_page import markdown_table
from dove.tokens import format_token_count

Reports = dict[str, dict[str, Any]]

GAIN = "gain over as many for each photo, in PSNR of the mean error (dB)"
OURS, TRIVIAL = "dove-tiny", "cosines"
MARGIN = 0.03
"""Share by which a distance has to be smaller than the transform's before a page calls it nearer."""
LENGTHS = (1, 2, 4, 8, 16, 32)
PROBED_LENGTHS = (1, 4, 16)


def replace_sections(page: Path, root: Path, reports: Reports) -> str:
    """Give the text of a page with its sections written anew.

    Raises:
        ValueError: If a section is not on the page.
    """
    text = page.read_text(encoding="utf-8")
    for name, write in SECTIONS[str(page.relative_to(root))].items():
        pattern = re.compile(rf"(<!-- results: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        body = write(reports)
        text, count = pattern.subn(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text)
        if count != 1:
            raise ValueError(f"{page} has {count} sections {name}")
    return text


def rows_of(reports: Reports, model: str) -> dict[Any, dict[str, Any]]:
    """Rows of a model by number of tokens."""
    rows = reports["reconstruction"]["rows"]
    return {row["num_tokens"]: row for row in rows if row["model"] == model}


def networks(reports: Reports) -> list[str]:
    """Networks that the distances were measured by."""
    row = rows_of(reports, OURS)[1]
    return [name for name in NAMES if f"perceptual_{name}" in row]


def told_network(reports: Reports, name: str) -> str:
    """Name of a network, and whether a loss of dove-tiny used it."""
    used = uses(rows_of(reports, OURS)[1], name)
    return f"{NAMES[name]} ({'in its losses' if used else 'in no loss'})"


def told_length(row: dict[str, Any]) -> str:
    """Number of tokens, with its mean for `auto`, and that mean for every photo."""
    if row["num_tokens"] == FIXED:
        return f"{row['mean_length']:.0f} for every photo"
    return f"auto, {row['mean_length']:.1f} on average" if row["num_tokens"] == "auto" else str(row["num_tokens"])


def readme_models(reports: Reports) -> str:
    """Table of the shipped models."""
    used = networks(reports)
    head = [
        "model",
        "PSNR in dB at 1 / 4 / 16 / 64 tokens",
        *(f"distance by {told_network(reports, n)} at 1 / 4 / 16" for n in used),
    ]
    lines = []
    for model in (OURS, TRIVIAL):
        rows = rows_of(reports, model)
        distances = [" / ".join(f"{rows[k][f'perceptual_{n}']:.3f}" for k in (1, 4, 16)) for n in used]
        lines.append([f"`{model}`", " / ".join(told_psnr(rows[k]) for k in (1, 4, 16, 64)), *distances])
    return f"{markdown_table(head, lines)}\n\n{verdict(reports)}\n\n{classes(reports)}"


def probed(reports: Reports, data: str) -> dict[tuple[str, int | str, int | None], float]:
    """Accuracies in percent of the linear probes on a data set, by model, layer and number of tokens."""
    rows = reports[f"probe-{data}"]["rows"]
    return {(row["model"], row["layer"], row["num_tokens"]): row["top1"] for row in rows}


def classes(reports: Reports) -> str:
    """Sentence about what tokens and hidden states tell of a photo's class."""
    found = probed(reports, "cifar10")
    chosen = {row["model"]: row for row in reports["probe-cifar10"]["best_layers"]}[OURS]
    ours, theirs = (" / ".join(f"{found[model, 'tokens', k]:.1f}" for k in PROBED_LENGTHS) for model in (OURS, TRIVIAL))
    counts = join([str(k) for k in PROBED_LENGTHS])
    patches = found[OURS, "patches", None]
    return (
        f"A linear probe tells the ten classes of CIFAR-10 apart from the first {counts} tokens of `{OURS}` in {ours}% of the "
        f"photos, from the transform's in {theirs}%, from raw patches in {patches:.1f}%, from hidden layer "
        f"{chosen['layer']} of `{OURS}` in {chosen['top1']:.1f}%."
    )


def ratios(reports: Reports, kind: str, name: str) -> dict[int, float]:
    """Distances of dove-tiny as shares of the transform's, by length."""
    ours, theirs = rows_of(reports, OURS), rows_of(reports, TRIVIAL)
    return {k: ours[k][f"{kind}_{name}"] / theirs[k][f"{kind}_{name}"] for k in LENGTHS}


def verdict(reports: Reports) -> str:
    """Sentences about where dove-tiny beats the transform, and where it does not."""
    shares = [ratios(reports, "perceptual", name) for name in networks(reports)]
    nearer = [str(k) for k in LENGTHS if max(share[k] for share in shares) < 1 - MARGIN]
    others = [str(k) for k in LENGTHS if str(k) not in nearer]
    ours, theirs = rows_of(reports, OURS), rows_of(reports, TRIVIAL)
    gains, tails = (
        " / ".join(f"{ours[k][name] - theirs[k][name]:+.2f}" for k in LENGTHS) for name in ("psnr", "psnr_p10")
    )
    counts = " / ".join(map(str, LENGTHS))
    first = (
        f"By all of these networks it is at least {MARGIN:.0%} nearer to the photo than the cosine transform at "
        f"{join(nearer)} tokens; at {join(others)} tokens it is not: training has gained nothing there."
        if nearer
        else "By these networks together it is not nearer to the photo than the cosine transform at any length."
    )
    return (
        f"{first} Its PSNR less the transform's at {counts} tokens is {gains} dB on average over the photos and {tails} dB at "
        "their tenth percentile, that of hard photos."
    )


def join(words: list[str]) -> str:
    """Join words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def card(reports: Reports) -> str:
    """Table of the model card: a column of each measure, the transform's beside it."""
    used = networks(reports)
    head = ["tokens", "PSNR (dB)", "cosines"]
    for name in used:
        head += [f"distance by {told_network(reports, name)}", "cosines"]
    ours, theirs = rows_of(reports, OURS), rows_of(reports, TRIVIAL)
    lines = []
    for k, row in ours.items():
        other = theirs[k]
        length = (
            f"auto ({row['mean_length']:.1f}; cosines {other['mean_length']:.1f})" if k == "auto" else told_length(row)
        )
        line = [length, told_psnr(row), told_psnr(other)]
        for name in used:
            line += [f"{row[f'perceptual_{name}']:.3f}", f"{other[f'perceptual_{name}']:.3f}"]
        lines.append(line)
    return f"{markdown_table(head, lines)}\n\n{verdict(reports)}\n\n{classes(reports)}"


def reconstruction(reports: Reports) -> str:
    """Table of all rows, then the distances as shares of the transform's."""
    used = networks(reports)
    head = ["model", "tokens", "PSNR (dB)", "SSIM", *(f"`perceptual_{name}`" for name in used)]
    lines = [
        [f"`{model}`", told_length(row), told_psnr(row), f"{row['ssim']:.3f}"]
        + [f"{row[f'perceptual_{name}']:.3f}" for name in used]
        for model in (OURS, TRIVIAL)
        for row in rows_of(reports, model).values()
    ]
    shares = [
        [f"{label} by {told_network(reports, name)}", *(f"{ratios(reports, kind, name)[k]:.2f}" for k in LENGTHS)]
        for kind, label in (("perceptual", "distance"), ("fd", "Frechet distance"))
        for name in used
    ]
    relative = markdown_table(["of the transform's, at tokens", *map(str, LENGTHS)], shares)
    spread = {row["model"]: row for row in reports["reconstruction"]["auto_vs_fixed"]}
    auto, same = (rows_of(reports, OURS)[k] for k in ("auto", FIXED))
    share, fixed = spread[OURS]["psnr_std_ratio"], spread[OURS]["fixed_num_tokens"]
    told = (
        f"At `auto` the standard deviation of PSNR over photos is {auto['psnr_std']:.2f} dB, {share:.2f} of that of {fixed} "
        f"tokens for every photo (the transform's own lengths: {spread[TRIVIAL]['psnr_std_ratio']:.2f}). Mean PSNR is "
        f"{auto['psnr']:.2f} dB at `auto` and {same['psnr']:.2f} dB with {fixed} tokens for every photo: lengths buy evenness."
    )
    return f"{markdown_table(head, lines)}\n\n{relative}\n\n{verdict(reports)}\n{told}"


def lengths(reports: Reports) -> str:
    """Table of the lengths."""
    head = ["model", "mean", "Pearson with Laplacian variance", "with its logarithm", "Spearman", "10 / 50 / 90%"]
    lines = []
    for row in reports["lengths"]["rows"]:
        correlations = [f"{row[name]:.3f}" for name in ("pearson", "pearson_log", "spearman")]
        quantiles = " / ".join(f"{row['quantiles'][name]:.0f}" for name in ("p10", "p50", "p90"))
        lines.append([f"`{row['model']}`", f"{row['mean']:.2f}", *correlations, quantiles])
    return markdown_table(head, lines)


def calibration(reports: Reports) -> str:
    """Tables of predicted against measured quality, and of budgets."""
    rows = reports["calibration"]["rows"]
    errors = [row for row in rows if row["kind"] == "length"]
    by_length = markdown_table(
        ["tokens", *(str(row["num_tokens"]) for row in errors)],
        [["mean error of the predicted PSNR (dB)", *(f"{row['error']:.2f}" for row in errors)]],
    )
    budgets = markdown_table(
        ["mean tokens asked for", GAIN, "share of what known errors gain"],
        [
            [row["num_tokens"].split()[1], f"{row['gain_over_fixed']:.2f}", f"{row['share_of_known']:.0%}"]
            for row in rows
            if row["kind"] == "policy" and row["num_tokens"].startswith("budget")
        ],
    )
    return f"{by_length}\n\n{budgets}"


def probes(reports: Reports) -> str:
    """Table of the linear probes."""
    names = ("cifar10", "caltech101")
    cifar, caltech = (probed(reports, name) for name in names)
    head = ["features", "CIFAR-10 (%)", "Caltech-101 (%)"]
    lines = [[told_place(*place), f"{top1:.1f}", f"{caltech[place]:.1f}"] for place, top1 in cifar.items()]
    majority = [f"{reports[f'probe-{name}']['largest_class']:.1f}" for name in names]
    return markdown_table(head, [*lines, ["the most frequent class", *majority]])


def told_place(model: str, layer: int | str, num_tokens: int | None) -> str:
    """Name what was probed."""
    if layer == "patches":
        return "raw patches of 8 x 8 pixels"
    if layer == "tokens":
        return f"`{model}`, {format_token_count(num_tokens)}"
    return f"`{model}`, hidden layer {layer}" if isinstance(layer, int) else f"`{model}`, {layer}"


SECTIONS: dict[str, dict[str, Callable[[Reports], str]]] = {
    "README.md": {"models": readme_models},
    "src/dove/weights/dove-tiny/README.md": {"measured": card},
    "docs/results/tiny/README.md": {
        "reconstruction": reconstruction,
        "lengths": lengths,
        "calibration": calibration,
        "probes": probes,
    },
    "docs/results/ablation/README.md": {"rows": ablation},
}
"""Writers of the sections of each page, by path from the repository's root."""
