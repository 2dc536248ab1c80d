"""``dove completion``: completion of commands and their options in a shell."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import tyro

from dove.errors import UserError

BASH = """# Completion of dove for bash; made by `dove completion bash`.
_dove() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" command="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ "$word" == -* ]] && break
        command="${{command:+$command }}$word"
    done
    local words=""
    case "$command" in
{cases}
    esac
    COMPREPLY=()
    if [[ "$current" != -* && -n "$words" ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); fi
    if [[ "$current" == -* ]]; then COMPREPLY=($(compgen -W "--help" -- "$current")); fi
    if [[ ${{#COMPREPLY[@]}} -eq 0 ]]; then COMPREPLY=($(compgen -f -- "$current")); fi
}}
complete -o filenames -F _dove dove
"""
ZSH = "#compdef dove\nautoload -Uz bashcompinit && bashcompinit\n"


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Print a script for the shell; for bash: dove completion bash > ~/.local/share/bash-completion/completions/dove"""

    shell: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="bash|zsh")]
    """Which shell."""


def run(options: CompletionOptions) -> None:
    """Print it.

    Raises:
        UserError: for another shell.
    """
    from dove.cli import COMMANDS

    if options.shell not in ("bash", "zsh"):
        raise UserError(f"no completion for {options.shell!r}; pass bash or zsh")
    script = make_script(COMMANDS)
    print((ZSH + script) if options.shell == "zsh" else script, end="")


def make_script(commands: Iterable[str]) -> str:
    """For bash; names of two words complete one after the other.

    Args:
        commands: as ``cli.COMMANDS`` names them.
    """
    groups: dict[str, list[str]] = {"": []}
    for command in commands:
        first, _, second = command.partition(" ")
        if first not in groups[""]:
            groups[""].append(first)
        if second:
            groups.setdefault(first, []).append(second)
    cases = [f'        "{group}") words="{" ".join(names)}" ;;' for group, names in groups.items()]
    return BASH.format(cases="\n".join(cases))
