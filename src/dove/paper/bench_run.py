"""Run the bench: one row after the other, past those that fail."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dove.errors import UserError
from dove.paper.bench import Row, load_rows, seconds_left

FULL = 200_000  # Images that a row sees where nothing else is asked for


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """Settings of the bench's trainings.

    Attributes:
        images: that a row sees, over all its stages but the VQGAN in front of them.
    """

    data: str
    squeezenet: Path
    bench: Path
    only: tuple[str, ...] = ()
    images: int = FULL
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UserError(f"--images {self.images} must be at least 1")

    @property
    def share(self) -> float:
        """Share of the presets' images."""
        return self.images / FULL


def run_bench(run: BenchRun, *, dry_run: bool = False) -> int:
    """Make the rows that are not there and return 1 if one fails, else 0.

    A row that fails is told in a line, rows that need it are left out, and the others go on.
    """
    rows = load_rows(run.only)
    failed: dict[str, str] = {}
    for row in rows:
        if row.progress(run.bench, run.share).done:
            print(f"{row.name}: done")
            continue
        if not dry_run:
            print(told_left(rows, run, set(failed)), flush=True)
        if reason := missing_stage(row, run, dry_run=dry_run) or make_row(row, run, dry_run=dry_run):
            failed[row.name] = reason
            print(f"{row.name} failed: {reason}; the other rows go on", file=sys.stderr, flush=True)
    if failed:
        print(f"{len(failed)} of {len(rows)} rows failed: {', '.join(failed)}; the same command tries them again")
    return 1 if failed else 0


def missing_stage(row: Row, run: BenchRun, *, dry_run: bool) -> str | None:
    """Say what a row lacks of the row that it builds on."""
    if row.needs is None or dry_run:
        return None
    (needed,) = load_rows([row.needs])
    return None if needed.progress(run.bench, run.share).done else f"it builds on {row.needs}, which is not finished"


def make_row(row: Row, run: BenchRun, *, dry_run: bool) -> str | None:
    """Train or fit a row, from its last checkpoint if there is one, and return the reason if that fails."""
    if row.fit:
        print(f"{row.name}: fitted to images of {run.data}", flush=True)
        if not dry_run:
            from dove.paper.bench_fits import fit_row

            fit_row(row.fit, run.data, row.model(run.bench))
        return None
    command = row.command(run.bench, run.data, run.squeezenet, share=run.share, seed=run.seed)
    print(f"$ dove {shlex.join(command)}", flush=True)
    if dry_run:
        return None
    # A process each: a training leaves its threads, its seeds and its accelerator settings behind.
    status = subprocess.run([sys.executable, "-m", "dove", *command], check=False).returncode
    return f"dove train ended with status {status}" if status else None


def told_left(rows: Sequence[Row], run: BenchRun, failed: set[str]) -> str:
    """Describe in a line how much of all rows is left."""
    states = [row.progress(run.bench, run.share) for row in rows if row.name not in failed]
    done = sum(state.done for state in states)
    left = seconds_left(states)
    if left is None:
        return (
            f"{done} of {len(rows)} rows done; how long is left can be told when the first training has been measured"
        )
    unmeasured = sum(not state.done and state.images > 0 and not state.images_per_second for state in states)
    guessed = f", {unmeasured} of the rows guessed from the others' images a second" if unmeasured else ""
    return f"{done} of {len(rows)} rows done; about {told_time(left)} left{guessed}"


def told_time(seconds: float) -> str:
    """Hours and minutes; at least a minute."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
