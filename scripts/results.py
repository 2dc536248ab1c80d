"""Make the tables and pictures about the shipped models: ``make results DATA=tiny-imagenet-val.parquet``.

What was made from the weights that ship is left alone, so the command can be stopped and given again. Reports, some fifteen
minutes of one thread, come first; tables and sentences of the pages are written from them, between
``<!-- results: NAME -->`` and ``<!-- end -->``, so that nobody types a figure. With ``--check`` nothing is made: what is
stale is listed, exit status 1.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from result_ablation import read_ablation
from result_pages import SECTIONS, replace_sections
from result_picture import PICTURES, draw, picture_hash

from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
from dove.runtime import save_outputs

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results" / "tiny"
PICTURES_FOLDER = ROOT / "docs" / "pictures"


@dataclass(frozen=True)
class Report:
    """Report of one command, kept in ``docs/results/tiny`` as NAME.json, NAME.csv and NAME.png.

    Attributes:
        name: Name of its files; what stands before the first hyphen is the command.
        flags: Flags of ``dove evaluate`` besides models, data and output.
        models: Shipped models that it measures.
        photos: Number of photos.
        data: File of the photos, in the folder of the given one; None for the given one.
    """

    name: str
    flags: tuple[str, ...] = ()
    models: tuple[str, ...] = ("dove-tiny", "cosines")
    photos: int = 2000
    data: str | None = None

    @property
    def file(self) -> Path:
        """JSON file of the report."""
        return FOLDER / f"{self.name}.json"

    def stale(self) -> str | None:
        """Say why the report has to be made anew; None where it was made from what ships."""
        if not self.file.is_file():
            return "it is missing"
        made_from = json.loads(self.file.read_text(encoding="utf-8"))["provenance"]["models"]
        old = [name for name in self.models if made_from.get(name) != shipped_hash(name)]
        return f"it was made from other weights of {', '.join(old)}" if old else None

    def make(self, data: Path) -> None:
        """Measure in a folder beside the data, so that its provenance names files and no folders, and keep the files."""
        with tempfile.TemporaryDirectory() as folder:
            kind = self.name.partition("-")[0]
            command = ["evaluate", kind, "--model", *self.models, "--data", self.data or data.name]
            command += ["--limit", str(self.photos), *self.flags, "--output", folder]
            subprocess.run([sys.executable, "-m", "dove", *command], check=True, cwd=data.resolve().parent)
            for made in Path(folder).glob(f"{kind}.*"):
                if made.suffix != ".json":
                    shutil.copy(made, FOLDER / f"{self.name}{made.suffix}")
            text = (Path(folder) / f"{kind}.json").read_text(encoding="utf-8").replace(folder, "results")
            # Last and at once: what was cut off before counts as stale.
            save_outputs({self.file: text.encode()})


def probe_flags(train: str, photos: int) -> tuple[str, ...]:
    """Flags of a linear probe of all that can be probed."""
    layers = ("all", "latents", "tokens", "patches")
    photos_of = ("--train-data", train, "--train-limit", str(photos), "--label-column", "name")
    return "--kind", "linear", *photos_of, "--layer", *layers, "--num-tokens", "1", "4", "16", "64"


REPORTS = (
    Report("reconstruction", ("--num-tokens", "1", "2", "4", "8", "16", "32", "64", "auto")),
    Report("lengths"),
    Report("calibration", ("--psnr", "22", "25", "28", "--budgets", "8", "16"), models=("dove-tiny",), photos=1000),
    Report("probe-cifar10", probe_flags("cifar10-train.parquet", 5000), data="cifar10-test.parquet"),
    Report(
        "probe-caltech101", probe_flags("caltech101-train.parquet", 3400), data="caltech101-test.parquet", photos=740
    ),
)


def shipped_hash(name: str) -> str:
    """Compute the hash of a shipped checkpoint."""
    return checkpoint_sha256(resolve_checkpoint(name))


def stale_picture(file: Path) -> str | None:
    """Say why a picture has to be drawn anew; None where it was drawn with the weights that ship."""
    if not file.is_file():
        return "it is missing"
    return None if picture_hash(file) == shipped_hash("dove-tiny") else "it was drawn with other weights"


def stale_pages() -> list[Path]:
    """List the pages whose sections differ from what the reports give."""
    reports = read_reports()
    pages = (ROOT / page for page in SECTIONS)
    return [page for page in pages if replace_sections(page, ROOT, reports) != page.read_text(encoding="utf-8")]


def read_reports() -> dict[str, dict]:
    """Read the reports by name, and those of the ablation by row and kind."""
    own = {report.name: json.loads(report.file.read_text(encoding="utf-8")) for report in REPORTS}
    return {**own, "ablation": read_ablation()}


def list_stale() -> list[str]:
    """List what does not belong to the weights that ship, a line each."""
    found = [(report.file, report.stale()) for report in REPORTS]
    found += [(PICTURES_FOLDER / name, stale_picture(PICTURES_FOLDER / name)) for name in PICTURES]
    lines = [f"{file.relative_to(ROOT)}: {reason}" for file, reason in found if reason]
    if not lines:
        lines = [f"{page.relative_to(ROOT)}: its figures are not those of the reports" for page in stale_pages()]
    return lines


def make(data: Path) -> None:
    """Make what is stale, the slow reports first."""
    for report in REPORTS:
        reason = report.stale()
        print(f"{report.file.relative_to(ROOT)}: {reason or 'fresh'}", flush=True)
        if reason:
            report.make(data)
    for name in PICTURES:
        file = PICTURES_FOLDER / name
        reason = stale_picture(file)
        print(f"{file.relative_to(ROOT)}: {reason or 'fresh'}", flush=True)
        if reason:
            draw(file, shipped_hash("dove-tiny"))
    reports = read_reports()
    for page in stale_pages():
        page.write_text(replace_sections(page, ROOT, reports), encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: written", flush=True)


def main() -> int:
    """Parse the flags and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="parquet file of the Tiny ImageNet validation set, with those of the probes beside it"
    )
    parser.add_argument("--check", action="store_true", help="list what is stale and make nothing")
    flags = parser.parse_args()
    if flags.check:
        lines = list_stale()
        print("\n".join(lines) if lines else "everything belongs to the weights that ship")
        return 1 if lines else 0
    if flags.data is None or not flags.data.is_file():
        print(f"no file {flags.data}: pass the Tiny ImageNet validation set, make results DATA=FILE", file=sys.stderr)
        return 2
    make(flags.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
