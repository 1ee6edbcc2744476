"""What sections of the configuration are made of."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from waguard.config.browser_flags import flag_problem

CODE = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_FLAG = r"--[a-z0-9-]+(=[^\x00-\x1f\x7f]*)?"
LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"


def looks(**as_schema: Any) -> Any:
    """What the schema for editors says of a text; it refuses nothing that the validator beside it would take."""
    if "pattern" in as_schema:
        as_schema["pattern"] = f"^({as_schema['pattern']})$"
    return Field(json_schema_extra=as_schema)


def _allowed(flags: list[str]) -> list[str]:
    for flag in flags:
        if why := flag_problem(flag):
            raise ValueError(why)
    return flags


AnyPath = Annotated[Path, Field(strict=False, json_schema_extra={"minLength": 1})]
Code = Annotated[str, looks(pattern=CODE)]
Flags = Annotated[list[Annotated[str, looks(pattern=_FLAG)]], AfterValidator(_allowed)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        """No text of ours holds control characters; a NUL would only be refused by the kernel, at the first start."""
        for text in value if isinstance(value, list | dict) else [value]:
            if isinstance(text, str | Path) and re.search(r"[\x00-\x1f\x7f]", str(text)):
                raise ValueError("must not contain control characters")
            if isinstance(text, Path) and text == Path():
                raise ValueError("must not be empty")
        return value
