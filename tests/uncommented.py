"""config.toml as somebody has it who wants everything."""

import re

from checkout import text

COMMENTED = re.compile(r"# ?(?P<line>[a-z_]+ = .+|\[clients\.demo\])")


def uncommented() -> str:
    """config.toml with every key switched on."""
    return "\n".join(COMMENTED.sub(r"\g<line>", line) for line in text("config.toml").splitlines())
