"""The page of the paper's claims in Markdown: a line for each claim, the rows that were measured, and where they come from."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import mean
from typing import Any

from dove.paper import load_yaml
from dove.paper.claims import Claim, Column, Comparison, Outcome, claim_of, judge
from dove.paper.reports import COSINES, FLAT, LEAST_GAIN, Reports

TEXTS: dict[str, str] = load_yaml("claims_page.yaml")
SECOND = {"DOVE": "DOVE+", "Q-DOVE": "Q-DOVE+"}
TABLE_COLUMNS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "perceptual_squeezenet": "perceptual, SqueezeNet",
    "fd_squeezenet": "Frechet, SqueezeNet",
    "perceptual_efficientnet": "perceptual, EfficientNet",
    "fd_efficientnet": "Frechet, EfficientNet",
}


def write_page(judged: Sequence[tuple[Claim, Outcome]], columns: Mapping[str, Column], reports: Reports) -> str:
    """Write the page."""
    heads = ("claim", "paper", "measured here", "beside it", "size", "seeds", "verdict")
    parts = [TEXTS["introduction"], markdown_table(heads, [claim_line(*pair, columns, reports) for pair in judged])]
    if notes := [f"- {claim.says}: {note}" for claim, _ in judged if (note := reports.notes.get(claim.id))]:
        parts += ["## What is behind it", "\n".join(notes)]
    second = [claim_of(claim, SECOND) for claim, _ in judged if claim.rule.of.model in SECOND]
    pairs = [(claim, judge(claim, columns, reports)) for claim in second]
    if more := [claim_line(claim, outcome, columns, reports) for claim, outcome in pairs if outcome.comparisons]:
        parts += [TEXTS["second"], markdown_table(heads, more)]
    parts += [TEXTS["rules"].format(least_gain=LEAST_GAIN), "\n".join(decisions(judged, columns))]
    if models := reports.models():
        parts += ["## What was measured", markdown_table(*measured_rows(models, reports))]
        parts += [*unlearned_lines(models, reports), *below_cosines_lines(models, reports)]
    parts += ["## Where the figures come from", "\n".join(origin_lines(reports)) or "No report has been read."]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Format a table."""
    rule = ["---"] * len(heads)
    return "\n".join(f"| {' | '.join(cell or '-' for cell in line)} |" for line in (heads, rule, *lines))


def claim_line(claim: Claim, outcome: Outcome, columns: Mapping[str, Column], reports: Reports) -> list[str]:
    """Make the cells of a claim."""
    seeds = str(min(item.seeds for item in outcome.comparisons)) if outcome.comparisons else ""
    measured = outcome.reason
    if outcome.comparisons:
        measured = f"{columns[claim.rule.column].title}: {measured_text(claim, outcome.comparisons)}"
    verdict = f"**{outcome.verdict}**"
    trivial = trivial_text(claim, outcome, reports)
    return [f"{claim.says} ({claim.where})", claim.paper, measured, trivial, size_text(claim, reports), seeds, verdict]


def measured_text(claim: Claim, comparisons: Sequence[Comparison]) -> str:
    """Say in a phrase what a verdict rests on."""
    if claim.rule.kind == "rises":
        first = comparisons[0]
        steps = [(first.beside.rpartition(" ")[2], first.other), *((item.at, item.value) for item in comparisons)]
        return ", ".join(f"{number(value)} at {at}" for at, value in steps)
    told = []
    for beside, items in groupby(comparisons, key=lambda item: item.beside):
        values = (
            f"{number(item.value)} against {number(item.other)}{f' at {item.at}' if item.at else ''}" for item in items
        )
        told.append(f"{', '.join(values)} ({beside})")
    return "; ".join(told)


def trivial_text(claim: Claim, outcome: Outcome, reports: Reports) -> str:
    """Give the same column of the rows that nothing is learned for, at the greatest length that they share with the claim."""
    rule, told = claim.rule, []
    if not outcome.comparisons:
        return ""
    for model in (FLAT, COSINES):
        lengths = reports.lengths(rule.report, model, rule.column, {}, rule.key)
        asked = [int(item.at) for item in outcome.comparisons if item.at.isdigit() and int(item.at) in lengths]
        length = max(asked) if asked else lengths[-1] if lengths else None
        where = {} if length is None else {"num_tokens": length}
        if values := reports.values(rule.report, model, rule.column, where, rule.key):
            told.append(f"{model} {number(mean(values))}" + (f" at {length}" if length is not None else ""))
    return ", ".join(told)


def size_text(claim: Claim, reports: Reports) -> str:
    """Say how large the claim's model is and how many images it has seen."""
    rows = (row for _, row in reports.rows("reconstruction", claim.rule.of.model) if "parameters" in row)
    if (row := next(rows, None)) is None:
        return ""
    seen = f", {row['images_seen']:,} images" if row.get("images_seen") else ""
    return f"{row['image_size']} px, {row['parameters'] / 1e6:.2f} M{seen}"


def decisions(judged: Sequence[tuple[Claim, Outcome]], columns: Mapping[str, Column]) -> Iterator[str]:
    """List the claims' rules with their margins and commands, and what is to be said about them."""
    for claim, outcome in judged:
        column = columns[claim.rule.column]
        margin = told_margin(column.margin, column)
        if outcome.comparisons:
            noises = [item.noise for item in outcome.comparisons]
            used = list(dict.fromkeys(told_margin(noise, column) for noise in (min(noises), max(noises))))
            margin += f", with these seeds {' to '.join(used)}"
        remark = f" Note: {claim.remark}." if claim.remark else ""
        yield f"- {claim.says}: {claim.decides} (margin {margin} of {column.title}; `{claim.run}`).{remark}"


def told_margin(margin: float, column: Column) -> str:
    """Write a margin: in per cent where differences are shares."""
    return f"{margin:.1%}" if column.relative else f"{margin:.2g}"


def measured_rows(models: Sequence[str], reports: Reports) -> tuple[list[str], list[list[str]]]:
    """Make the table of all models at all lengths, means over seeds."""
    facts = ("numbers or bits a token", "parameters", "multiply-adds", "images seen")
    heads = ["model", "tokens", *facts, *TABLE_COLUMNS.values()]
    heads += ["top-1 tokens", "top-1 hidden", "encode /s", "decode /s"]
    lines = []
    for model in models:
        rows = {row["num_tokens"]: row for _, row in reports.rows("reconstruction", model)}
        longest = max((length for length in rows if isinstance(length, int)), default=None)
        layers = any(isinstance(row.get("layer"), int) for _, row in reports.rows("probe", model))
        for length, row in rows.items():
            where = {"num_tokens": length}
            values = [reports.values("reconstruction", model, column, where) for column in TABLE_COLUMNS]
            values.append(reports.values("probe", model, "top1", {**where, "layer": "tokens"}))
            hidden = layers and length == longest
            values.append(reports.values("probe", model, "top1", {}, "best_layers") if hidden else [])
            values += [
                reports.values("speed", model, f"{work}_images_per_second", where) for work in ("encode", "decode")
            ]
            lengths = reports.values("reconstruction", model, "mean_length", where)
            tokens = str(length) if isinstance(length, int) else f"{length} ({mean(lengths):.1f})"
            lines.append([model, tokens, *facts_text(row), *map(mean_text, values)])
    return heads, lines


def mean_text(values: Sequence[float]) -> str:
    """Write the mean over seeds; nothing where nothing was measured."""
    return number(mean(values)) if values else ""


def facts_text(row: Mapping[str, Any]) -> list[str]:
    """Write the columns that make a comparison fair."""
    bits = row.get("bits_a_token")
    operations, seen = row.get("multiply_adds"), row.get("images_seen")
    return [
        f"{bits:g} bits" if bits else str(row.get("numbers_a_token", "")),
        f"{parameters / 1e6:.2f} M" if (parameters := row.get("parameters", 0)) >= 10_000 else str(parameters),
        f"{operations / 1e6:.1f} M" if operations else "",
        f"{seen:,}" if seen else "",
    ]


def unlearned_lines(models: Sequence[str], reports: Reports) -> Iterator[str]:
    """Name the models that have not learned."""
    for model in models:
        if model != FLAT and reports.learned(model) is False:
            yield f"**{model}: not learned**, less than {LEAST_GAIN:g} dB above the flat colour; no verdict uses it."


def below_cosines_lines(models: Sequence[str], reports: Reports) -> Iterator[str]:
    """Name the models that a cosine transform with as many numbers a token beats, and at which lengths."""
    cosines = {row["num_tokens"]: row for _, row in reports.rows("reconstruction", COSINES)}
    for model in models:
        below = {
            row["num_tokens"]
            for _, row in reports.rows("reconstruction", model)
            if isinstance(row["num_tokens"], int)
            and (beside := cosines.get(row["num_tokens"]))
            and row.get("numbers_a_token") == beside.get("numbers_a_token")
            and not row.get("bits_a_token")
            and row["psnr"] < beside["psnr"]
        }
        if below and model not in (COSINES, FLAT):
            told = ", ".join(map(str, sorted(below)))
            yield f"**{model}: below the cosines** at {told} tokens in PSNR, with as many numbers a token and nothing learned."


def origin_lines(reports: Reports) -> Iterator[str]:
    """Say for each report where its numbers come from."""
    for origin in reports.origins:
        models = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in origin["models"].items())
        data = ", ".join(f"{item['images']:,} images {item['sha256'][:12]}" for item in origin["data"].values())
        commit = (origin["commit"] or "unknown")[:12]
        told = [f"commit {commit}", models, data or "noise", f"evaluated with seed {origin['seed']}"]
        told += [origin["hardware"]["device"], f"{origin['seconds']:g} s"]
        yield f"- `{origin['report']}`: {' · '.join(told)}"


def number(value: float) -> str:
    """Write a number with as many digits as are read."""
    if abs(value) >= 1e9:
        return f"{value / 1e9:,.4g} G"
    if abs(value) >= 1000:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"
