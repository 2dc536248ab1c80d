"""Build wheel and sdist into dist/, install each in an environment of its own, and try them there: `make release`.

The environments see the packages of the one that runs this script, so that PyTorch is not installed again; the package itself
is taken from the file alone.
"""

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WANTED = ("weights/dove-tiny/model.safetensors", "py.typed", "paper/table2.yaml")
"""Files below the package that an installation needs."""


def call(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed; what it says on stderr is shown.

    Raises:
        SystemExit: if it fails.
    """
    done = subprocess.run([str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with status {done.returncode}")
    return done.stdout.strip()


def check_contents(file: Path) -> None:
    """Make sure that nothing an installation needs was left out.

    Raises:
        SystemExit: naming what is missing.
    """
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            names = wheel.namelist()
    else:
        with tarfile.open(file) as archive:
            names = archive.getnames()
    missing = [wanted for wanted in WANTED if not any(name.endswith(f"dove/{wanted}") for name in names)]
    if missing:
        sys.exit(f"{file.name} lacks {', '.join(missing)}")


def try_installed(file: Path, folder: Path) -> str:
    """Install a built file and run the command outside of the checkout; returns its version."""
    call(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    # The packages that dove needs, not dove itself: a path file of an editable install is not read from there.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(
        python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall", file
    )
    version = call(folder / "bin" / "dove", "--version", cwd=folder)
    where = call(python, "-c", "import dove; print(dove.__file__)", cwd=folder)
    if not where.startswith(str(folder)):
        sys.exit(f"{file.name}: dove was imported from {where}")
    call(folder / "bin" / "dove", "info", "dove-tiny", cwd=folder)
    return version


def main() -> None:
    """Build, check, install, run."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "dist"
        builder = Path(scratch) / "builder"
        call(sys.executable, "-m", "venv", builder)
        python = builder / "bin" / "python"
        call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "build")
        call(python, "-m", "build", "--outdir", built)
        for file in sorted(built.iterdir()):
            check_contents(file)
            version = try_installed(file, Path(scratch) / f"try-{file.suffix.strip('.')}")
            print(f"{file.name}: {version}, {file.stat().st_size / 1e6:.1f} MB")
        target = ROOT / "dist"
        target.mkdir(exist_ok=True)
        for file in built.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    print(f"wrote {', '.join(sorted(path.name for path in target.iterdir()))} to dist")


if __name__ == "__main__":
    main()
