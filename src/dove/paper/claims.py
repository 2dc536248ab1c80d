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

    def at(self, length: int) -> "Side":
        """Take those of one number of tokens alone."""
        return replace(self, where={**self.where, "num_tokens": length})


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

    def values(self, reports: Reports, side: Side) -> list[float]:
        """Collect the column of a side's rows, one value for each seed."""
        return reports.values(self.report, side.model, self.column, side.where, self.key)

    def lengths(self, reports: Reports, side: Side) -> list[int]:
        """List the numbers of tokens at which a side has the column."""
        return reports.lengths(self.report, side.model, self.column, side.where, self.key)


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
    pairs: Sequence[Sequence[tuple[Side, Side | None]]]  # one group for each thing that has to be there
    if rule.kind == "reaches":
        pairs = [[(rule.of, None)]]
    elif rule.kind == "rises":
        pairs = [[(rule.of.at(more), rule.of.at(less)) for less, more in pairwise(rule.lengths(reports, rule.of))]]
    else:
        pairs = [_at_common_lengths(rule, reports, side) for side in rule.than]
    found = [[item for pair in group if (item := _compare(rule, column, reports, *pair))] for group in pairs]
    if not found or not all(found):
        return Outcome(verdict="not measured", reason="rows are missing")
    comparisons = [comparison for group in found for comparison in group]
    if any(comparison.gain <= -comparison.noise for comparison in comparisons):
        return Outcome(verdict="does not hold", comparisons=comparisons)
    clear = all(comparison.gain >= comparison.noise for comparison in comparisons)
    return Outcome(verdict="holds" if clear else "not told apart", comparisons=comparisons)


def _at_common_lengths(rule: Rule, reports: Reports, other: Side) -> list[tuple[Side, Side]]:
    """Pair the model with the other side at every number of tokens that both have, if neither names one and either has any."""
    ours, theirs = rule.lengths(reports, rule.of), rule.lengths(reports, other)
    if "num_tokens" in {**rule.of.where, **other.where} or not (ours or theirs):
        return [(rule.of, other)]
    return [(rule.of.at(length), other.at(length)) for length in sorted({*ours} & {*theirs})]


def _compare(rule: Rule, column: Column, reports: Reports, ours: Side, other: Side | None) -> Comparison | None:
    """Compare the model with another side, or without one with what the rule asks for; None where a value is missing."""
    groups = [rule.values(reports, side) for side in (ours, other) if side]
    if not all(groups):
        return None
    value, beside = mean(groups[0]), mean(groups[1]) if other else rule.by
    return Comparison(
        at=str(ours.where.get("num_tokens", "")),
        value=value,
        other=beside,
        beside=_label(ours, other) if other else "asked for",
        gain=column.gain(value, beside) + (rule.by if rule.kind == "level" else 0.0),
        noise=column.noise(*groups),
        seeds=min(map(len, groups)),
    )


def _label(ours: Side, other: Side) -> str:
    """Name the other side, rows of the same model by what sets them apart: "itself at 64", "itself with query null"."""
    if other.model != ours.model:
        return other.model
    apart = {key: value for key, value in other.where.items() if ours.where.get(key) != value}
    at = f" at {apart.pop('num_tokens')}" if "num_tokens" in apart else ""
    return f"itself{at}" + "".join(f" with {key} {value}" for key, value in apart.items())
