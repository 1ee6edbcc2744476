"""Every kind of error has one code, one place, and a line in the reference."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import waguard
from waguard.core.health import faults
from waguard.errors import BY_CODE, StorageError

ROOT = Path(waguard.__file__).parent


def test_every_kind_says_what_it_means_and_what_to_do() -> None:
    page = (ROOT.parent / "docs/reference/errors.md").read_text()
    for code, kind in BY_CODE.items():
        assert page.count(f"### `{code}`\n") == 1
        assert kind.code == code
        assert kind.do
        assert kind.__doc__


def test_a_code_is_taken_once() -> None:
    with pytest.raises(TypeError, match="the code disk_full is DiskFull's"):
        type("Full", (StorageError,), {}, code="disk_full")


def failures() -> Iterator[tuple[str, str]]:
    """Where, and which code, of each error that is made as data."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Failure"), args=[ast.Constant(value=str(code)), *_]):
                    yield f"{path.name}:{node.lineno}", code


def test_what_is_carried_as_data_has_a_code_of_the_tree() -> None:
    found = [*failures(), *((fault.value, code) for fault, (code, *_) in faults._SAID.items())]
    assert len(found) > len(faults._SAID)
    assert [one for one in found if one[1] not in BY_CODE] == []


def test_every_kind_is_raised_somewhere() -> None:
    """A code that nothing reports would be a promise that nobody keeps."""
    nodes = [
        node
        for path in ROOT.rglob("*.py")
        if path.name != "errors.py" and path.parent.name != "errors"
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    named |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert [code for code, kind in BY_CODE.items() if not named & {code, kind.__name__}] == []
