"""What people are told to set, to run or to ask for is there, under that name, and does it."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer
from pydantic import BaseModel

import waguard
from waguard.api.routes import ROUTES
from waguard.cli.app import app as commands
from waguard.config.sections import Config
from waguard.core.catalogue import EVENTS

ROOT = Path(waguard.__file__).parent
HANDED_OUT = [ROOT.parent / "README.md", *sorted((ROOT.parent / "docs").rglob("*.md"))]
PROSE = {"and", "answers", "decides", "has", "owns", "running", "sets"}
"""What waguard does in a sentence, and is no command."""

SECTIONS: Mapping[str, set[str]] = {
    name: set(field.annotation.model_fields)
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
SETTING = re.compile(rf"(?<![\w./-])({'|'.join(SECTIONS)})\.([a-z][a-z_]*)(?![\w(])")
COMMAND = re.compile(r"(?<![\w./-])waguard ([a-z]+)([^.;:,'\"\n`|]*)")
REQUEST = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/v1/[\w/{}.-]*\w\}?)")
IN_MARKDOWN = re.compile(r"(?m)(?:`|^|&& |\$\()(?:sudo )?((?:waguard|GET|POST|PUT|PATCH|DELETE) [^`\n#]+)")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def texts() -> Iterator[tuple[str, str]]:
    """Where, and each text of the source in which there are words; what stands in for a value is ``{}``."""
    for path, tree in trees():
        unsaid = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                unsaid |= {id(part) for part in node.values}
        for node in ast.walk(tree):
            if id(node) in unsaid:
                continue
            match node:
                case ast.Constant(value=str(text)):
                    pass
                case ast.JoinedStr():
                    text = "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
                    )
                case _:
                    continue
            if " " in text:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def written() -> Iterator[tuple[str, str]]:
    """The same, and what is code in what comes with it."""
    yield from texts()
    for path in HANDED_OUT:
        for code in IN_MARKDOWN.findall(path.read_text(encoding="utf-8")):
            yield path.name, code


def test_every_setting_that_is_named_is_there() -> None:
    named = 0
    for where, text in texts():
        for found in SETTING.finditer(text):
            named += 1
            assert found[2] in SECTIONS[found[1]] or found[0] in EVENTS, f"{where}: {found[0]}"
    assert named > 50


def test_every_command_that_is_named_is_there_with_its_options() -> None:
    group = typer.main.get_command(commands)
    assert isinstance(group, typer.core.TyperGroup)
    seen = set()
    for where, text in written():
        for name, rest in COMMAND.findall(text):
            if name in PROSE:
                continue
            assert name in group.commands, f"{where}: waguard {name}"
            seen.add(name)
            command, words = group.commands[name], rest.split()
            if isinstance(command, typer.core.TyperGroup) and words and words[0] in command.commands:
                command = command.commands[words[0]]
            options = {option for one in command.params for option in one.opts}
            unknown = set(re.findall(r"(?<!\S)--[a-z-]+", rest)) - options - {"--help"}
            assert not unknown, f"{where}: waguard {name} {unknown}"
    assert {"connect", "doctor", "install"} <= seen


def test_every_request_that_is_named_has_a_route() -> None:
    known = {(one.method, re.sub(r"\{\w+\}", "*", one.path)) for one in ROUTES}
    seen = set()
    for where, text in written():
        for method, path in REQUEST.findall(text):
            asked = re.sub(r"(?<=/sessions/)[^/]+", "*", path)
            asked = re.sub(r"/(snapshots|uploads|downloads|values|tokens|webhooks)/[^/]+", r"/\1/*", asked)
            assert (method, asked) in known, f"{where}: {method} {path}"
            seen.add(asked)
    assert "/v1/sessions/*/screenshot" in seen


# --- deadlines --------------------------------------------------------------------------------------------------


def origins(seconds: ast.expr, scope: ast.AST, everywhere: list[ast.AST]) -> str:
    """Where the seconds are from: the expression, or what is assigned to the name, or what callers give for it."""
    if not isinstance(seconds, ast.Name):
        return ast.unparse(seconds)
    assert isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == seconds.id:
            return ast.unparse(node.value)
    if seconds.id not in {one.arg for one in (*scope.args.args, *scope.args.kwonlyargs)}:
        return seconds.id  # a constant
    calls = [
        (node, function)
        for function in everywhere
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and re.search(rf"(^|\.){scope.name}$", ast.unparse(node.func))
    ]
    assert calls, scope.name
    return " ".join(
        origins(argument, function, everywhere)
        if isinstance(argument, ast.Name) and argument.id == seconds.id
        else ast.unparse(argument)
        for call, function in calls
        for argument in call.args
    )


def waits() -> Iterator[tuple[str, str, str, str | None]]:
    """Where, the stage, where its seconds are from, and the setting that is named."""
    functions: list[ast.AST] = []
    calls = []
    for path, tree in trees():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append(function)
                for node in ast.walk(function):
                    match node:
                        case ast.Call(
                            func=ast.Name(id="within") | ast.Attribute(attr="enter"), args=[first, _, _]
                        ) if "Stage." in ast.unparse(first):
                            calls.append((f"{path.relative_to(ROOT)}:{node.lineno}", node, function))
    for where, node, function in calls:
        stage = ast.unparse(node.args[0]).rpartition(".")[2].lower()
        (setting,) = [ast.literal_eval(one.value) for one in node.keywords] or [None]
        yield where, stage, origins(node.args[1], function, functions), setting


def test_a_deadline_that_passes_names_the_setting_that_it_is_from() -> None:
    seen = set()
    for where, stage, origin, setting in waits():
        seen.add(setting)
        if setting is None:
            assert f"deadlines.{stage}" in origin or f"_limit_s(Stage.{stage.upper()})" in origin, (
                where,
                origin,
            )
        elif setting:
            assert setting in origin, (where, origin)
        else:
            assert not re.search(r"\b(config|settings|deadlines)\b", origin), (where, origin)
    assert seen == {None, "", "page.read_s", "page.pairing_s"}
