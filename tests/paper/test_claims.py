"""Verdicts on the paper's claims from small made-up reports, each of them both ways, and the page."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dove.cli import main
from dove.errors import UserError
from dove.paper.claims import Claim, Column, Side, claim_of, judge, load_claims
from dove.paper.claims_page import SECOND, write_page
from dove.paper.reports import Reports, read_reports

CLAIMS, COLUMNS = load_claims()
LENGTHS = (8, 16, 32, 64)
ORIGIN = {"models": {}, "data": {}, "commit": "abc", "seed": 0, "seconds": 1.0, "hardware": {"device": "one thread"}}


def write(folder: Path, report: str, lists: Mapping[str, list[dict[str, Any]]], weights: str | None = None) -> None:
    """Write a report about a DOVE, of other weights in each folder if none are given."""
    folder.mkdir(parents=True)
    origin = ORIGIN | {"models": {"DOVE": f"0123456789ab {weights or folder}"}}
    (folder / f"{report}.json").write_text(json.dumps({**lists, "provenance": origin}))


def reconstructions(model: str, psnr: float) -> list[dict[str, Any]]:
    return [{"model": model, "num_tokens": length, "psnr": psnr, "image_size": 32} for length in LENGTHS]


def made_up(claim: Claim, effect: float, folder: Path) -> None:
    """A report in which the claim's model is better than it has to be by so many margins, or worse where that is below 0."""
    rule, column = claim.rule, COLUMNS[claim.rule.column]
    sign = 1 if column.better == "higher" else -1
    step = sign * effect * column.margin * (100 if column.relative else 1)
    rows = [] if rule.kind == "reaches" else [row for side in rule.than for row in side_rows(side, rule.column, 100)]
    allowed = rule.by * (100 if column.relative else 1) if rule.kind == "level" else 0.0
    start = rule.by if rule.kind == "reaches" else 100 - sign * allowed
    rises = rule.kind == "rises"
    rows += side_rows(rule.of, rule.column, start + step, step=step if rises else 0.0)
    if rule.key == "best_layers":  # one row for each model, of no number of tokens
        rows = list({row["model"]: {k: v for k, v in row.items() if k != "num_tokens"} for row in rows}.values())
    write(folder / "claim", rule.report, {rule.key: rows})
    models = {rule.of.model, *(side.model for side in rule.than)}
    learned = [row for model in models for row in reconstructions(model, 30.0)]
    write(folder / "learned", "reconstruction", {"rows": [*learned, *reconstructions("flat colour", 12.0)]})


def side_rows(side: Side, column: str, value: float, step: float = 0.0) -> list[dict[str, Any]]:
    lengths: Iterable[Any] = [side.where["num_tokens"]] if "num_tokens" in side.where else LENGTHS
    return [
        {"model": side.model, "num_tokens": length, **side.where, column: value + place * step, "image_size": 32}
        for place, length in enumerate(lengths)
    ]


def verdict(claim: Claim, effect: float, folder: Path) -> str:
    made_up(claim, effect, folder)
    return judge(claim, COLUMNS, read_reports([folder])).verdict


def named(name: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.id == name)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_is_decided_both_ways_and_left_open_between(claim: Claim, tmp_path: Path) -> None:
    assert verdict(claim, 4.0, tmp_path / "good") == "holds"
    assert verdict(claim, -4.0, tmp_path / "bad") == "does not hold"
    assert verdict(claim, 0.3, tmp_path / "close") == "not told apart"
    assert judge(claim, COLUMNS, Reports({}, [])).verdict == "not measured"


def test_one_seed_needs_twice_the_margin_and_seeds_must_agree(tmp_path: Path) -> None:
    claim = named("alit")
    assert verdict(claim, 1.5, tmp_path / "0") == "not told apart"
    made_up(claim, 1.5, tmp_path / "1")
    assert judge(claim, COLUMNS, read_reports([tmp_path / "0", tmp_path / "1"])).verdict == "holds"
    made_up(claim, 6.0, tmp_path / "2")  # now the seeds differ by more than the mean difference
    assert judge(claim, COLUMNS, read_reports([tmp_path / "0", tmp_path / "2"])).verdict == "not told apart"


def page_of(reports: Reports) -> str:
    """The page of all claims."""
    return write_page([(claim, judge(claim, COLUMNS, reports)) for claim in CLAIMS], COLUMNS, reports)


def test_the_spread_between_seeds_counts_beside_a_row_of_one_seed() -> None:
    column = Column(title="distance", better="lower", margin=0.03, relative=True)
    assert column.noise([10.0], [20.0]) == column.noise([10.0], [20.0, 20.0]) == pytest.approx(0.06)
    assert column.noise([10.0], [19.0, 21.0]) == pytest.approx(0.1)
    assert column.noise([10.0, 10.0], [20.0, 20.0]) == pytest.approx(0.03)


def test_a_row_as_good_as_a_flat_colour_takes_part_in_no_verdict(tmp_path: Path) -> None:
    claim = named("alit")
    made_up(claim, 4.0, tmp_path)
    (tmp_path / "learned" / "reconstruction.json").unlink()
    rows = [*reconstructions("DOVE", 30.0), *reconstructions("ALIT", 12.9), *reconstructions("flat colour", 12.0)]
    (tmp_path / "learned" / "reconstruction.json").write_text(json.dumps({"rows": rows, "provenance": ORIGIN}))
    reports = read_reports([tmp_path])
    outcome = judge(claim, COLUMNS, reports)
    assert (outcome.verdict, outcome.reason) == ("not measured", "not learned: ALIT")
    assert "**ALIT: not learned**" in page_of(reports)


def test_one_bad_length_is_enough_to_refute_every_length(tmp_path: Path) -> None:
    claim = named("alit")
    made_up(claim, 4.0, tmp_path)
    file = tmp_path / "claim" / "reconstruction.json"
    report = json.loads(file.read_text())
    report["rows"][-1]["fd_efficientnet"] = 150.0
    file.write_text(json.dumps(report))
    assert judge(claim, COLUMNS, read_reports([tmp_path])).verdict == "does not hold"


def test_the_page_shows_values_trivial_rows_and_origins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(named("alit"), 4.0, tmp_path / "reports")
    page = tmp_path / "claims.md"
    flat = [{"model": "flat colour", "num_tokens": 64, "psnr": 12.0, "fd_efficientnet": 900.0, "image_size": 32}]
    write(tmp_path / "reports" / "flat", "reconstruction", {"rows": flat})
    assert main(["paper", "claims", "--reports", str(tmp_path / "reports"), "--output", str(page)]) == 0
    text = page.read_text()
    assert "Frechet distance: 88 against 100 at 8, 88 against 100 at 16" in text
    assert "flat colour 900 at 64" in text
    assert "commit abc · DOVE 0123456789ab · noise · evaluated with seed 0 · one thread · 1 s" in text
    assert "alit             holds" in capsys.readouterr().out


def test_without_reports_nothing_counts_as_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "claims.md"
    assert main(["paper", "claims", "--output", str(page)]) == 0
    assert page.read_text().count("**not measured**") == len(CLAIMS)
    capsys.readouterr()
    assert main(["paper", "claims", "--output", str(page), "--json"]) == 0
    verdicts = json.loads(capsys.readouterr().out)
    assert [row["claim"] for row in verdicts] == [claim.id for claim in CLAIMS]
    assert {row["verdict"] for row in verdicts} == {"not measured"}
    assert main(["paper", "claims", "--reports", str(tmp_path / "none"), "--output", str(page)]) == 2
    assert "is no folder; dove paper evaluate bench makes one" in capsys.readouterr().err


def test_a_row_below_the_cosines_is_named_where_its_tokens_hold_as_many_numbers(tmp_path: Path) -> None:
    rows = [
        {**row, "num_tokens": length, "numbers_a_token": numbers, "mean_length": length}
        for model, psnr, numbers in (("DOVE", 20.0, 32), ("TiTok-8", 20.0, 16), ("cosines", 25.0, 32))
        for length, row in zip(LENGTHS, reconstructions(model, psnr), strict=True)
    ]
    rows[0]["psnr"] = 26.0
    write(tmp_path / "rows", "reconstruction", {"rows": rows})
    text = page_of(read_reports([tmp_path]))
    assert "**DOVE: below the cosines** at 16, 32, 64 tokens" in text
    assert "**TiTok-8" not in text


def test_claims_of_dove_are_asked_of_dove_plus_apart(tmp_path: Path) -> None:
    made_up(claim_of(named("alit"), SECOND), 4.0, tmp_path)
    reports = read_reports([tmp_path])
    first, _, second = page_of(reports).partition("## The same of DOVE+")
    assert "**holds**" not in first
    assert "**holds**" in second
    assert claim_of(named("speed-short"), SECOND).rule.than[0].model == "DOVE+ VQGAN"
    assert claim_of(named("gaussian"), SECOND).rule.of.model == "DOVE-Gaussian"


def test_a_query_is_compared_with_null_of_the_same_model(tmp_path: Path) -> None:
    rows = [
        {"data": "seen", "model": "Q-DOVE", "query": query, "num_tokens": "auto", "mean_length": length}
        for query, length in (("query", 10.0), ("null", 12.0))
    ]
    write(tmp_path / "rows", "queries", {"rows": rows})
    claim, columns = named("queries-shorter"), load_claims()[1]
    outcome = judge(claim, columns, read_reports([tmp_path]))
    assert outcome.verdict == "holds"
    assert outcome.comparisons[0].beside == "itself with query null"


def test_quality_that_does_not_rise_at_every_length_does_not_rise(tmp_path: Path) -> None:
    claim = named("quality")
    made_up(claim, 4.0, tmp_path)
    file = tmp_path / "claim" / "reconstruction.json"
    report = json.loads(file.read_text())
    report["rows"][-1]["fd_efficientnet"] = report["rows"][-2]["fd_efficientnet"]
    file.write_text(json.dumps(report))
    assert judge(claim, COLUMNS, read_reports([tmp_path])).verdict == "not told apart"


def test_without_a_flat_colour_nobody_knows_what_has_learned(tmp_path: Path) -> None:
    claim = named("alit")
    made_up(claim, 4.0, tmp_path)
    file = tmp_path / "learned" / "reconstruction.json"
    report = json.loads(file.read_text())
    report["rows"] = [row for row in report["rows"] if row["model"] != "flat colour"]
    file.write_text(json.dumps(report))
    outcome = judge(claim, COLUMNS, read_reports([tmp_path]))
    assert (outcome.verdict, outcome.reason) == ("not measured", "no flat colour beside it tells what has learned")


def test_one_training_in_two_folders_is_not_two_seeds(tmp_path: Path) -> None:
    for folder in ("0", "1"):
        write(tmp_path / folder / "dove", "reconstruction", {"rows": reconstructions("DOVE", 30.0)}, "one training")
    with pytest.raises(UserError, match="measure the same weights of DOVE, which would count as two seeds"):
        read_reports([tmp_path / "0", tmp_path / "1"])


def test_the_margin_that_was_used_is_on_the_page(tmp_path: Path) -> None:
    made_up(named("alit"), 4.0, tmp_path)
    assert "(margin 3.0%, with these seeds 6.0% of Frechet distance;" in page_of(read_reports([tmp_path]))


def test_notes_beside_the_reports_are_on_the_page(tmp_path: Path) -> None:
    made_up(named("alit"), 4.0, tmp_path)
    notes = tmp_path / "notes.yaml"
    notes.write_text("alit: it saw more images\n")
    assert f"- {named('alit').says}: it saw more images" in page_of(read_reports([tmp_path]))
    for damage in ("- a list", "alit: [1]", "alit: {"):
        notes.write_text(damage)
        with pytest.raises(UserError, match="notes.yaml"):
            read_reports([tmp_path])


def test_models_without_a_common_length_are_not_compared(tmp_path: Path) -> None:
    rows = [{"model": "DOVE", "num_tokens": 1, "fd_efficientnet": 40.0, "psnr": 20.0, "image_size": 32}]
    rows += [{"model": "ALIT", "num_tokens": 32, "fd_efficientnet": 10.0, "psnr": 20.0, "image_size": 32}]
    write(tmp_path / "one", "reconstruction", {"rows": [*rows, *reconstructions("flat colour", 12.0)]})
    assert judge(named("alit"), COLUMNS, read_reports([tmp_path / "one"])).verdict == "not measured"
