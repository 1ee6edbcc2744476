"""The pages of the reference that are made from the code: ``python -m waguard.cli.reference errors > docs/reference/errors.md``."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from waguard.cli.errors import CommandError
from waguard.errors import (
    BY_CODE,
    Internal,
    LoginError,
    PageError,
    ProcessError,
    RequestError,
    SessionError,
    StorageError,
    WaguardError,
)

_GROUPS: Sequence[type[WaguardError]] = (
    RequestError,
    SessionError,
    PageError,
    ProcessError,
    LoginError,
    StorageError,
    CommandError,
    Internal,
)


def errors() -> Iterator[str]:
    """Every kind by its group."""
    yield from _head("Errors", "errors")
    yield "Every error has a `code`. A code never changes and is never used for something else; messages and hints may change."
    yield "*Again*: whether the same request may succeed later by itself; the header `Retry-After` says when, where that is known."
    yield "A dash for the status: the control port never answers so; a command reports it, or the log."
    for group in _GROUPS:
        yield from ("", f"## {'Bugs' if group is Internal else _text(group)}")
        for kind in (one for one in BY_CODE.values() if issubclass(one, group)):
            yield from ("", f"### `{kind.code}`", "", _text(kind), "")
            yield f"Status: {kind.http or '-'}. Again: {'yes' if kind.again else 'no'}. To do: {kind.do}"


def _text(kind: type[WaguardError]) -> str:
    return " ".join((kind.__doc__ or "").split()).replace("``", "`")


def _head(title: str, name: str) -> Iterator[str]:
    yield from (f"# {title}", "")
    yield from (f"<!-- Made by python -m waguard.cli.reference {name}; a test keeps it so. -->", "")


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {"errors": errors}

if __name__ == "__main__":
    print("\n".join(PAGES[sys.argv[1]]()))  # noqa: T201 (the docs are made from it)
