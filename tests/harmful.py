"""What no terminal should get."""

import unicodedata


def harmful(text: str) -> list[str]:
    """The characters of it that no terminal should get; ends of lines and tabs are no harm."""
    bad = {"Cc", "Cs", "Zl", "Zp"}
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        one
        for one in text
        if one not in "\n\t" and (unicodedata.category(one) in bad or unicodedata.bidirectional(one) in bidi)
    ]
