"""Names that others have given to files."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from waguard.core.file_name import MOST, file_name


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("invoice 7.pdf", "invoice 7.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\fakepath\\a.png", "a.png"),
        ("gpj.\u202egnp.exe", "gpj.gnp.exe"),
        ("a\x00\x1b[31m\nb\ud83d.txt", "a[31mb.txt"),
        (".bashrc", "bashrc"),
        ("Übersicht - März 😀.pdf", "Übersicht - März 😀.pdf"),
        ("..", "file"),
        ("", "file"),
        ("/", "file"),
        ("x" * 500 + ".pdf", "x" * (MOST - 4) + ".pdf"),
        ("x." + "y" * 500, "x." + "y" * (MOST - 2)),
    ],
)
def test_a_name_is_harmless(given_name: str, name: str) -> None:
    assert file_name(given_name) == name


@given(st.text())
@example("😀" * 200 + ".😀😀😀😀")
def test_any_name_is_one_of_a_file(text: str) -> None:
    name = file_name(text)
    assert 0 < len(name.encode()) <= MOST
    assert name not in {".", ".."}
    assert not set(name) & set("/\\\0\n\r")
    assert file_name(name) == name
