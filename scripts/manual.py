#!/usr/bin/env python3
"""Make the man pages and the completions of shells, where a package has them below ``/usr/share``: ``scripts/manual.py DIRECTORY``.

They follow from the commands and from config.toml, as docs/reference does.
"""

import gzip
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import typer
from typer.testing import CliRunner

from waguard import __version__
from waguard.cli.app import app
from waguard.cli.completion import Command, table
from waguard.cli.exits import ExitCode
from waguard.config.load import ENV_PREFIX
from waguard.config.schema import comments

ROOT = Path(__file__).resolve().parent.parent


def commands_page() -> Iterator[str]:
    program, *commands = table(typer.main.get_command(app))
    yield _head("WAGUARD", 1, "User Commands")
    yield from (".SH NAME", r"waguard \- supervise WhatsApp Web browsers", ".SH SYNOPSIS")
    yield r"\fBwaguard\fR [\fB\-\-config\fR \fIFILE\fR] \fICOMMAND\fR [\fIARGUMENT\fR]..."
    yield from (".SH DESCRIPTION", _text(program.says))
    yield "A daemon owns the browsers, and the other commands ask it. It is configured by a file, see"
    yield r"\fBwaguard\-config\fR(5)."
    yield from (".SH OPTIONS", *_options(program), ".SH COMMANDS")
    for one in (each for each in commands if not each.commands):
        arguments = "".join(rf" \fI{_text(name)}\fR" for name, _ in one.arguments)
        yield from (rf".SS {_text(one.words)}{arguments}", _text(one.says))
        for name, says in one.arguments:
            yield from (".TP", rf"\fI{_text(name.strip('[]'))}\fR", _text(says))
        yield from _options(one)
    yield ".SH EXIT STATUS"
    for code in ExitCode:
        yield from (".TP", rf"\fB{code:d}\fR", _text(code.says))
    yield ".SH ENVIRONMENT"
    for name, says in (
        ("WAGUARD_CONFIG", "The configuration file, where --config names none."),
        ("WAGUARD_TOKEN", "The token that is shown to the daemon, instead of the admin's."),
        (f"{ENV_PREFIX}SECTION__KEY", "Any key of the configuration; it wins over the files."),
    ):
        yield from (".TP", rf"\fB{_text(name)}\fR", _text(says))
    yield ".SH FILES"
    for name, says in (
        ("/etc/waguard/config.toml, /etc/waguard/conf.d/*.toml", "The configuration of the service."),
        ("/etc/waguard/keys", "The keys that snapshots are sealed with: keep a copy elsewhere."),
        ("/var/lib/waguard/sessions", "Logins, their snapshots, tokens: what is to be protected."),
        ("/usr/share/doc/waguard", "The whole documentation."),
    ):
        yield from (".TP", rf"\fI{_text(name)}\fR", _text(says))
    yield from (".SH SEE ALSO", r"\fBwaguard\-config\fR(5), \fBsystemctl\fR(1), \fBjournalctl\fR(1)")


def _options(command: Command) -> Iterator[str]:
    for option in command.options if not command.words else command.options[:-1]:  # --help is everywhere
        names = ", ".join(rf"\fB{_text(name)}\fR" for name in option.names)
        value = rf" \fI{_text(option.value)}\fR" if option.value else ""
        yield from (".TP", f"{names}{value}", _text(option.says))


def configuration_page() -> Iterator[str]:
    yield _head("WAGUARD-CONFIG", 5, "File Formats")
    yield from (".SH NAME", r"waguard\-config \- configuration of waguard", ".SH SYNOPSIS")
    yield from (r"\fI./config.toml\fR, else \fI/etc/waguard/config.toml\fR", ".br")
    yield r"\fIconf.d/*.toml\fR beside it"
    section = ""
    for one in comments((ROOT / "config.toml").read_text(encoding="utf-8")):
        if one.section != section:
            section = one.section
            yield f".SH [{_text(section)}]"
        else:
            yield ".PP" if section else ".SH DESCRIPTION"
        if not one.key:
            yield from map(_text, filter(None, one.lines))
            continue
        default = one.note or f"default: {one.default}"
        yield from (".TP", rf"\fB{_text(one.key)}\fR", *map(_text, one.lines), ".br", f"{_text(default)}")
    yield from (".SH SEE ALSO", r"\fBwaguard\fR(1)")


def _head(name: str, section: int, book: str) -> str:
    made = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))
    return rf'.TH {_text(name)} {section} "{made}" "waguard {__version__}" "{book}"'


def _text(text: str) -> str:
    """As roff takes it for text, not for orders; hyphens can be copied, and what stands between backquotes is bold."""
    safe = text.replace("\\", r"\e").replace("-", r"\-")
    safe = re.sub(r"`+([^`]+)`+", r"\\fB\1\\fR", safe)
    return rf"\&{safe}" if safe.startswith((".", "'")) else safe


def _script(shell: str) -> Callable[[], str]:
    return lambda: CliRunner().invoke(app, ["completion", shell], prog_name="waguard").stdout


def _page(lines: Callable[[], Iterator[str]]) -> Callable[[], str]:
    return lambda: "\n".join(lines()) + "\n"


FILES: Mapping[str, Callable[[], str]] = {
    "man/man1/waguard.1.gz": _page(commands_page),
    "man/man5/waguard-config.5.gz": _page(configuration_page),
    "bash-completion/completions/waguard": _script("bash"),
    "zsh/vendor-completions/_waguard": _script("zsh"),
    "fish/vendor_completions.d/waguard.fish": _script("fish"),
}


def main() -> int:
    for name, made in FILES.items():
        path, data = Path(sys.argv[1]) / name, made().encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
