"""The paper's claims and the rules that decide them from reports. Imports no torch.

``claims.yaml`` lists the claims and the margin of every column. A difference counts where it exceeds the margin: the
column's, or twice that where a side has one seed, or the greatest spread between seeds of a side, whichever is larger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import mean
from typing import Any, Literal

from dove.paper import load_yaml
from dove.paper.reports import FLAT, Reports

Verdict = Literal["holds", "does not hold", "not told apart", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a report."""

    title: str  # Its name for readers
    better: Literal["higher", "lower"]
    margin: float  # Smallest difference that counts
    relative: bool = False  # True where differences are shares of the other value

    def gain(self, value: float, other: float) -> float:
        """Compute how much better a value is than another; below 0 where it is worse."""
        difference = value - other if self.better == "higher" else other - value
        return difference / abs(other) if self.relative else difference

    def noise(self, *groups: Sequence[float]) -> float:
        """Compute the margin for a comparison of means over the seeds of these groups."""
        spreads = [(max(group) - min(group)) / (abs(mean(group)) if self.relative else 1) for group in groups]
        return max(self.margin if min(map(len, groups)) > 1 else 2 * self.margin, *spreads)


@dataclass(frozen=True, kw_only=True)
class Side:
    """Rows of a comparison: those of a model that have all of ``where``."""

    model: str
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The decision of a claim."""

    kind: Literal["better", "level", "rises", "reaches"]
    """"better": the model beats each of ``than``; "level": it is worse by no more than ``by``; "rises": every length is
    better than the one before; "reaches": its value reaches ``by``."""
    report: str
    column: str
    of: Side  # Where it does not name a number of tokens, all that both sides have are compared
    than: Sequence[Side] = ()
    by: float = 0.0
    key: str = "rows"  # Name of the report's list of rows


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper; ``claims.yaml`` says what its fields mean."""

    id: str
    says: str
    where: str
    paper: str
    decides: str
    rule: Rule
    run: str
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two values that a rule compares, averaged over seeds."""

    at: str  # Number of tokens or label of it; empty where there is none
    value: float
    other: float
    beside: str  # Label of the other value
    gain: float  # How much better the value is than it has to be
    noise: float  # Margin that the gain has to exceed
    seeds: int  # Number of seeds of the side that has fewer


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Verdict on a claim, what it rests on, and the reason where nothing was measured."""

    verdict: Verdict
    comparisons: Sequence[Comparison] = ()
    reason: str = ""


def load_claims() -> tuple[list[Claim], dict[str, Column]]:
    """Read the claims and the columns that their rules compare."""
    content = load_yaml("claims.yaml")
    columns = {name: Column(**column) for name, column in content["columns"].items()}
    return [_claim(**entry) for entry in content["claims"]], columns


def _claim(rule: dict[str, Any], **entry: str) -> Claim:
    sides: dict[str, Any] = {"of": Side(**rule.pop("of")), "than": [Side(**side) for side in rule.pop("than", [])]}
    return Claim(rule=Rule(**sides, **rule), **entry)


def claim_of(claim: Claim, names: Mapping[str, str]) -> Claim:
    """Make the same claim of other models: ``names`` says which stands in the place of which."""

    def renamed(side: Side) -> Side:
        label, space, part = side.model.partition(" ")  # "DOVE VQGAN" is a part of it
        return replace(side, model=f"{names.get(label, label)}{space}{part}")

    rule = claim.rule
    return replace(claim, rule=replace(rule, of=renamed(rule.of), than=[renamed(side) for side in rule.than]))


def judge(claim: Claim, columns: Mapping[str, Column], reports: Reports) -> Outcome:
    """Decide a claim from reports."""
    rule, column = claim.rule, columns[claim.rule.column]
    sides = [rule.of, *rule.than]
    learned = {side.model: reports.learned(side.model) for side in sides}
    if unlearned := [model for model, value in learned.items() if value is False]:
        return Outcome(verdict="not measured", reason=f"not learned: {', '.join(unlearned)}")
    if any(value is None and any(reports.rows("reconstruction", model)) for model, value in learned.items()):
        return Outcome(verdict="not measured", reason=f"no {FLAT} beside it tells what has learned")
    if rule.kind == "reaches":
        groups = [[_reached(rule, column, reports)]]
    elif rule.kind == "rises":
        steps = pairwise(_lengths(rule, reports, rule.of))
        groups = [[_compare(rule, column, reports, rule.of, step) for step in steps]]
    else:
        groups = [
            [_compare(rule, column, reports, side, pair) for pair in _pairs(rule, reports, side)] for side in rule.than
        ]
    found = [[comparison for comparison in group if comparison] for group in groups]
    if not found or not all(found):  # one group for each thing that has to be there
        return Outcome(verdict="not measured", reason="rows are missing")
    comparisons = [comparison for group in found for comparison in group]
    if any(comparison.gain <= -comparison.noise for comparison in comparisons):
        return Outcome(verdict="does not hold", comparisons=comparisons)
    clear = all(comparison.gain >= comparison.noise for comparison in comparisons)
    return Outcome(verdict="holds" if clear else "not told apart", comparisons=comparisons)


def _reached(rule: Rule, column: Column, reports: Reports) -> Comparison | None:
    values = reports.values(rule.report, rule.of.model, rule.column, rule.of.where, rule.key)
    if not values:
        return None
    value = mean(values)
    return Comparison(
        at=str(rule.of.where.get("num_tokens", "")),
        value=value,
        other=rule.by,
        beside="asked for",
        gain=column.gain(value, rule.by),
        noise=column.noise(values),
        seeds=len(values),
    )


def _lengths(rule: Rule, reports: Reports, side: Side) -> list[int]:
    return reports.lengths(rule.report, side.model, rule.column, side.where, rule.key)


def _pairs(rule: Rule, reports: Reports, side: Side) -> list[tuple[Any, Any]]:
    """List the numbers of tokens of the other side and of the model that are compared; None where there is no such number."""
    if "num_tokens" in rule.of.where or "num_tokens" in side.where:
        return [(None, None)]
    theirs, ours = _lengths(rule, reports, side), _lengths(rule, reports, rule.of)
    if not theirs and not ours:
        return [(None, None)]
    return [(length, length) for length in sorted({*theirs} & {*ours})]


def _compare(rule: Rule, column: Column, reports: Reports, other: Side, lengths: tuple[Any, Any]) -> Comparison | None:
    """Compare the model at the second number of tokens with the other side at the first; None where a value is missing."""
    of = rule.of
    wheres = [
        {**side.where, **({} if length is None else {"num_tokens": length})}
        for side, length in zip((other, of), lengths, strict=True)
    ]
    theirs, ours = (
        reports.values(rule.report, side.model, rule.column, where, rule.key)
        for side, where in zip((other, of), wheres, strict=True)
    )
    if not theirs or not ours:
        return None
    value, beside = mean(ours), mean(theirs)
    allowed = rule.by if rule.kind == "level" else 0.0
    return Comparison(
        at=str(wheres[1].get("num_tokens", "")),
        value=value,
        other=beside,
        beside=other.model if other.model != of.model else _itself(*wheres),
        gain=column.gain(value, beside) + allowed,
        noise=column.noise(ours, theirs),
        seeds=min(len(ours), len(theirs)),
    )


def _itself(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Name the rows of the same model by what sets them apart: "itself at 64", "itself with query null"."""
    apart = {key: value for key, value in theirs.items() if ours.get(key) != value}
    at = f" at {apart.pop('num_tokens')}" if "num_tokens" in apart else ""
    return f"itself{at}" + "".join(f" with {key} {value}" for key, value in apart.items())
