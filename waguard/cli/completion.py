"""``waguard completion``: scripts by which shells complete commands, options and client codes. They are whole: nothing is imported
for a TAB but where a client code is wanted, and then no more than the configuration.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import EnumType, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from waguard.config.load import load
from waguard.core.model import client_code
from waguard.errors import ConfigError, InvalidClientCode

_VALUES = {int: "NUMBER", float: "NUMBER"}


class Form(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    CODES = "codes"


@dataclass(frozen=True, slots=True)
class Option:
    names: Sequence[str]
    says: str
    value: str
    """What it takes, as the manual calls it; empty: it is a switch."""
    choices: Sequence[str]
    files: bool


@dataclass(frozen=True, slots=True)
class Command:
    words: str
    """Without the program's name; empty: the program itself."""
    says: str
    options: Sequence[Option]
    commands: Mapping[str, str]
    """What may follow, and what each says."""
    arguments: Sequence[tuple[str, str]]
    """How each is called, and what it is."""
    choices: Sequence[str]
    """What one of them may be."""
    codes: bool
    """A client code may follow."""


def completion(
    ctx: typer.Context,
    form: Annotated[
        Form, typer.Argument(help="bash, zsh or fish; or codes, for the codes alone.", metavar="SHELL")
    ],
) -> None:
    """Print what makes a shell complete commands, options and client codes; the package has installed it."""
    if form is Form.CODES:
        for code in _codes(ctx):
            typer.echo(code)
        return
    made = {Form.BASH: _bash, Form.ZSH: _zsh, Form.FISH: _fish}[form]
    typer.echo(made([*table(ctx.find_root().command)]))


def table(command: Any, words: str = "") -> Iterator[Command]:
    """Every command there is, the program first."""
    below = getattr(command, "commands", {})
    own = [below[command.meant]] if hasattr(command, "meant") else []  # what is meant where none is named
    parameters = [one for each in (command, *own) for one in each.params]
    given = [one for one in parameters if one.param_type_name == "argument"]
    options = [_option(one) for one in parameters if one.param_type_name == "option"]
    yield Command(
        words,
        " ".join((command.help or "").split()),
        [*options, Option(["--help"], "Show this message and exit.", "", (), False)],
        {name: _said(one) for name, one in below.items()},
        [(one.metavar, one.help or "") for one in given],
        [choice for one in given for choice in _choices(one)],
        any(one.metavar in {"CODE", "[CODE]"} for one in given),
    )
    for name, one in below.items():
        yield from table(one, f"{words} {name}".strip())


def _option(parameter: Any) -> Option:
    kind = parameter.type_descriptor.annotation
    choices = _choices(parameter)
    called = parameter.metavar or ("FILE" if kind is Path else "|".join(choices) or _VALUES.get(kind, "TEXT"))
    return Option(
        [*parameter.opts, *parameter.secondary_opts],
        parameter.help or "Show the version and exit.",
        "" if parameter.is_flag else called,
        choices,
        kind is Path,
    )


def _choices(parameter: Any) -> Sequence[str]:
    kind = parameter.type_descriptor.annotation
    members: Sequence[Any] = [*kind] if isinstance(kind, EnumType) else []
    return [one.value for one in members]


def _said(command: Any) -> str:
    """Its first sentence."""
    return " ".join((command.help or "").split()).partition(". ")[0].removesuffix(".")


def _codes(ctx: typer.Context) -> Sequence[str]:
    """Of the clients that the registry has, where this user may read it; nobody who presses TAB wants to hear why not."""
    with suppress(ConfigError, OSError):
        found = load(ctx.obj).config.sessions.dir.glob("*/session.json")
        return sorted(filter(_is_code, (one.parent.name for one in found)))
    return ()


def _is_code(name: str) -> bool:
    """A directory may have any name, and a shell might take it for more than a word."""
    try:
        return bool(client_code(name))
    except InvalidClientCode:
        return False


def _cases(commands: Sequence[Command], files: str, nothing: str) -> Iterator[str]:
    """Which command it is, which option's value is wanted, what may follow: bash and zsh alike."""
    for one in commands[1:]:
        above, _, name = one.words.rpartition(" ")
        yield f"        '{above} {name}') cmd='{one.words}' ;;"
    yield "        esac"
    yield "    done"
    yield '    case "$cmd:$before" in'
    for one in commands:
        for option in (each for each in one.options if each.value):
            does = (
                f"reply='{' '.join(option.choices)}'"
                if option.choices
                else files
                if option.files
                else nothing
            )
            called = "|".join(f"'{one.words}:{name}'" for name in option.names)
            yield f"    {called}) {does} ;;"
    yield "    *)"
    yield '        case "$cmd" in'
    for one in commands:
        names = [*one.commands, *one.choices, *(name for option in one.options for name in option.names)]
        codes = " codes=yes" if one.codes else ""
        yield f"        '{one.words}') reply='{' '.join(names)}'{codes} ;;"
    yield "        esac ;;"
    yield "    esac"
    yield """    [[ -z $codes || $word == -* ]] || reply="$reply $("$program" completion codes 2>/dev/null)\""""


def _bash(commands: Sequence[Command]) -> str:
    return "\n".join(
        [
            "_waguard() {",
            "    local program=$1 word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}",
            "    local cmd= reply= codes= at",
            "    COMPREPLY=()",
            '    for at in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do',
            '        case "$cmd $at" in',
            *_cases(commands, "return", "compopt +o default; return"),
            # compgen -W would carry out what it finds in the words
            """    read -rd '' -a reply <<<"$reply\"""",
            '    for at in "${reply[@]}"; do [[ $at != "$word"* ]] || COMPREPLY+=("$at"); done',
            "}",
            "complete -o default -F _waguard waguard",
        ]
    )


def _zsh(commands: Sequence[Command]) -> str:
    return "\n".join(
        [
            "#compdef waguard",
            "_waguard() {",
            "    local program=$words[1] word=$words[CURRENT] before=$words[CURRENT-1]",
            "    local cmd= reply= codes= at",
            '    for at in "${(@)words[2,CURRENT-1]}"; do',
            '        case "$cmd $at" in',
            *_cases(commands, "_files; return", "return"),
            "    if [[ -n $reply ]]; then compadd -- ${=reply}; else _files; fi",
            "}",
            'if [[ $funcstack[1] == _waguard ]]; then _waguard "$@"; else compdef _waguard waguard; fi',
        ]
    )


def _fish(commands: Sequence[Command]) -> str:
    lines = [
        "function __waguard_at",
        "    set -l cmd ''",
        "    for at in (commandline -opc)[2..-1]",
        '        switch "$cmd $at"',
    ]
    for one in commands[1:]:
        above, _, name = one.words.rpartition(" ")
        lines += [f"            case '{above} {name}'", f"                set cmd '{one.words}'"]
    lines += ["        end", "    end", '    test "$cmd" = "$argv[1]"', "end"]
    for one in commands:
        here = f"complete -c waguard -n \"__waguard_at '{one.words}'\""
        if not any(name in {"PATH", "FILE"} for name, _ in one.arguments):
            lines.append(f"{here} -f")
        lines += [f"{here} -a {name} -d {_quoted(says)}" for name, says in one.commands.items()]
        lines += [f"{here} -a '{' '.join(one.choices)}'"] if one.choices else []
        lines += [f"{here} -a '(waguard completion codes 2>/dev/null)'"] if one.codes else []
        for option in one.options:
            names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
            takes = (
                f" -x -a '{' '.join(option.choices)}'"
                if option.choices
                else " -rF"
                if option.files
                else " -x"
            )
            lines.append(f"{here} {' '.join(names)}{takes if option.value else ''} -d {_quoted(option.says)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
