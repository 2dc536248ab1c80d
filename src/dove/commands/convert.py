"""The command ``dove convert``: a published ``.pth`` to a checkpoint folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dove.errors import UserError
from dove.flags import parse_pairs

MOST_NAMES = 40  # Largest number of names listed one by one; the rest is counted


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Make a checkpoint folder of published weights.

    Weights of a DOVE .pth file are found by name, with --map where the file has others than ours. Files of the systems that it
    is compared with are known: pass --kind.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The .pth (read as tensors alone, no code in it is run) or safetensors file; for vqmodel a folder or hub id."""
    output: Path
    """The checkpoint folder to write."""
    kind: Annotated[str, tyro.conf.arg(metavar="dove|vqmodel|titok-l32|...")] = "dove"
    """Kind of the weights: dove; vqmodel, a VQGAN in diffusers' layout; maskgit-vqgan or taming-vqgan; titok-l32, titok-b64,
    titok-s128; alit-small, alit-base, alit-semilarge."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="config.json")] = None
    """Sizes of the model, as in any checkpoint folder; without it those of the paper."""
    pixel_range: Literal["-1..1", "0..1"] | None = None
    """Range of the pixels that the VQGAN of a .pth was trained on, without --config: 0..1 by default; write
    --pixel-range=-1..1 for the other."""
    prefix: str = ""
    """Take only names that start with this, such as "ema.", where the file holds several copies."""
    map: Annotated[tuple[str, ...], tyro.conf.arg(metavar="OURS=THEIRS...")] = ()
    """Beginnings of names here and in the file, such as vqgan.=tokenizer.vq. generator.token_projection.=tokenizer.out."""
    json: bool = False
    """Print JSON, with all names that match nothing."""


def run(options: ConvertOptions) -> None:
    """Convert, save, and say which names match nothing."""
    if options.kind != "dove":
        from dove.integrations.rivals import convert_rival

        if options.config or options.prefix or options.map or options.pixel_range:
            raise UserError(
                "--config, --prefix, --map and --pixel-range are for DOVE's own .pth; leave them out with --kind"
            )
        convert_rival(options.kind, str(options.file), options.output)
        print(json.dumps({"output": str(options.output)}) if options.json else f"wrote {options.output}")
        return
    if options.config and options.pixel_range:
        raise UserError("--pixel-range stands in the file of --config, as vqgan.pixel_range; leave the flag out")
    from dove.checkpoint import read_config
    from dove.integrations.convert import convert
    from dove.weight_files import read_published

    beginnings = parse_pairs(options.map, "--map", "OURS=THEIRS, beginnings of names")
    config = read_config(options.config) if options.config else None
    published = read_published(options.file, options.prefix)
    conversion = convert(published, config, beginnings, options.pixel_range or "0..1")
    conversion.model.save_pretrained(options.output)
    if options.json:
        found = {"output": str(options.output), "zeroed": conversion.zeroed, "unused": conversion.unused}
        print(json.dumps(found, indent=2))
        return
    lines = _listed("not in the file and set to zero, which changes nothing", conversion.zeroed)
    lines += _listed("in the file and not used", conversion.unused)
    print(*lines, f"wrote {options.output}", sep="\n")


def _listed(title: str, names: tuple[str, ...]) -> list[str]:
    rest = [f"  and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return [f"{title}: {len(names)}", *(f"  {name}" for name in names[:MOST_NAMES]), *rest]
