"""The command ``dove convert``: a published ``.pth`` to a checkpoint folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from dove.errors import UserError
from dove.flags import parse_pairs

if TYPE_CHECKING:
    from dove.integrations.convert import Conversion

MOST_NAMES = 40  # Largest number of names listed one by one; the rest is counted


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Make a checkpoint folder of published weights.

    The parts of a DOVE .pth file are found by structure and shape. Files of the systems that it is compared with are known by
    name: pass --kind.
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
    pixel_range: Literal["-1..1", "0..1"] = "0..1"
    """Range of the pixels that the VQGAN of a .pth was trained on, without --config; write --pixel-range=-1..1."""
    prefix: str = ""
    """Take only names that start with this, such as "ema.", where the file holds several copies."""
    generator: str | None = None
    """Prefix of the transformer that is the token generator, where neither words nor order tell it right."""
    map: Annotated[tuple[str, ...], tyro.conf.arg(metavar="OURS=THEIRS...")] = ()
    """Settle by name what shapes leave open, such as generator.token_projection=to_tokens."""
    json: bool = False
    """Print JSON, with all names."""


def run(options: ConvertOptions) -> None:
    """Convert, save, and say what became of every name."""
    if options.kind != "dove":
        from dove.integrations.rivals import convert_rival

        if options.config or options.prefix or options.generator or options.map:
            raise UserError(
                "--config, --prefix, --generator and --map are for DOVE's own .pth; leave them out with --kind"
            )
        convert_rival(options.kind, str(options.file), options.output)
        print(json.dumps({"output": str(options.output)}) if options.json else f"wrote {options.output}")
        return
    from dove.checkpoint import read_config
    from dove.integrations.convert import convert
    from dove.weight_files import read_published

    mapping = parse_pairs(options.map, "--map", "OUR_NAME=NAME_IN_THE_FILE")
    config = read_config(options.config) if options.config else None
    conversion = convert(
        read_published(options.file, options.prefix), config, mapping, options.generator, options.pixel_range
    )
    conversion.model.save_pretrained(options.output)
    if options.json:
        found = {name: getattr(conversion, name) for name in ("matched", "zeroed", "unused")}
        found |= {"output": str(options.output), "layout": asdict(conversion.layout)}
        print(json.dumps(found, indent=2))
        return
    print(describe(conversion))
    print(f"wrote {options.output}")


def describe(conversion: "Conversion") -> str:
    """Describe the choices that were made, and the names that match nothing on either side."""
    layout = conversion.layout
    lines = [
        f"VQGAN            under {layout.vqgan!r}",
        f"token generator  under {layout.generator!r}: {layout.reason}",
        f"token decoder    under {layout.decoder!r}",
        *(f"{ours} = {theirs}" for ours, theirs in conversion.matched.items()),
        *_listed("not in the file and set to zero, which changes nothing", conversion.zeroed),
        *_listed("in the file and not used", conversion.unused),
    ]
    return "\n".join(lines)


def _listed(title: str, names: tuple[str, ...]) -> list[str]:
    rest = [f"  and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return [f"{title}: {len(names)}", *(f"  {name}" for name in names[:MOST_NAMES]), *rest]
