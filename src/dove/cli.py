"""The command ``dove``: maps names to modules and errors to exit statuses.

A command is a module with a function ``run(options)``; the annotation of its argument is a dataclass, of which tyro makes
the flags. A module with a ``parse(arguments)`` of its own gives the options itself. The module is imported when its
command is called, and imports torch inside ``run`` alone, so that help is quick.
"""

import difflib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, get_type_hints

from dove import __version__
from dove.errors import UserError, one_line

USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class Command(NamedTuple):
    """Module of a command and its line in ``dove --help``."""

    module: str
    help: str


# A name of two words is a command of a group: "evaluate lengths" makes `dove evaluate` list its members.
COMMANDS: dict[str, Command] = {
    name: Command(f"dove.commands.{name.replace(' ', '.')}", text)
    for name, text in {
        "reconstruct": "rebuild images from several numbers of tokens, side by side",
        "encode": "turn images into a folder of tokens",
        "decode": "turn a folder of tokens back into images",
        "train": "train a tokenizer",
        "evaluate reconstruction": "quality by number of tokens",
        "evaluate lengths": "how many tokens images get, and why",
        "evaluate probe": "how well classes are told apart from frozen features",
        "evaluate calibration": "predicted against measured quality",
        "evaluate rate": "bits per image against quality, beside JPEG and WebP",
        "evaluate queries": "tokens for a question against tokens for the whole image",
        "evaluate pca": "hidden features as a segmentation in colours",
        "evaluate speed": "images per second and operations by number of tokens",
        "paper": "list and rerun the tables and figures of the paper",
        "vlm train": "train a language model that sees through the tokens",
        "vlm evaluate": "how many questions about images it answers, by number of tokens",
        "vlm ask": "ask about an image",
        "data convert": "make training data with queries of a published data set",
        "export": "write the encoder as an ONNX graph or a torch.export archive",
        "convert": "make a checkpoint folder of a published DOVE .pth file",
        "demo": "serve a web page to try a tokenizer on photos of your own",
        "info": "say what a checkpoint is, or which ones ship",
        "doctor": "say what is installed here and whether it works",
    }.items()
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; ``argv`` without the program's name, None for ``sys.argv``."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # a hub out of reach is one line of ours, not ten of its retries
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return dispatch(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"dove: {one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("dove: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `dove info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's flush at exit fails once more
        return BROKEN_PIPE


def dispatch(arguments: list[str]) -> int:
    """Find the command, parse its options, run it."""
    name = next((name for name in COMMANDS if arguments[: name.count(" ") + 1] == name.split()), None)
    if name is not None:
        return run_command(name, arguments[name.count(" ") + 1 :])
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"dove {__version__}")
        return 0
    group = [arguments[0]] if arguments and any(name.startswith(f"{arguments[0]} ") for name in COMMANDS) else []
    rest = arguments[len(group) :]
    if rest[:1] in (["--help"], ["-h"]):
        print(help_text(group))
        return 0
    if not rest:
        print(help_text(group), file=sys.stderr)
        return USER_ERROR
    raise UserError(_unknown(" ".join([*group, rest[0]])))


def run_command(name: str, arguments: list[str]) -> int:
    """Import a command's module, parse ``arguments`` into its options and run it."""
    import tyro

    from dove.flags import parse_flags

    for argument in arguments:
        # Path.is_file raises where an argument is too long for a file name.
        if argument.startswith("-") and os.path.isfile(argument):  # noqa: PTH113
            raise UserError(f"{argument} is read as a flag; pass the file of that name as ./{argument}")
    module = import_module(COMMANDS[name].module)
    if hasattr(module, "parse"):
        return module.run(module.parse(arguments)) or 0
    options = get_type_hints(module.run)["options"]
    flags = (tyro.conf.FlagCreatePairsOff,)
    return module.run(parse_flags(options, prog=f"dove {name}", arguments=arguments, config=flags)) or 0


def help_text(group: Sequence[str] = ()) -> str:
    """Compose the text of ``dove --help``, or of ``dove evaluate --help`` for a group of commands."""
    prefix = " ".join(["dove", *group])
    listed = {name: command.help for name, command in COMMANDS.items() if f"dove {name} ".startswith(f"{prefix} ")}
    width = max(map(len, listed))
    lines = [
        f"usage: {prefix} COMMAND [OPTIONS]",
        "",
        "Images as sequences of continuous tokens, as many as each image needs.",
        "",
        "commands:",
        *(f"  {name:{width}}  {text}" for name, text in listed.items()),
        "",
        "`dove COMMAND --help` lists the options of a command; `dove --version` gives the version.",
    ]
    return "\n".join(lines)


def _show_warning(message: Warning | str, *_place: object, **_options: object) -> None:
    """Print a warning as one line, without the place in the code where it was raised."""
    print(f"dove: {one_line(message)}", file=sys.stderr)


def _unknown(name: str) -> str:
    group = name.rpartition(" ")[0]
    members = [command for command in COMMANDS if command.startswith(f"{group} ")] if group else list(COMMANDS)
    words = {command.removeprefix(f"{group} "): command for command in members}
    close = difflib.get_close_matches(name.removeprefix(f"{group} "), words, n=1)
    hint = f"did you mean '{words[close[0]]}'?" if close else f"there are {', '.join(members)}"
    return f"no command '{name}'; {hint} (see dove --help)"
