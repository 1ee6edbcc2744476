"""Which addresses are of one origin."""

import pytest

from waguard.core.address import elsewhere, same_origin

HOME = "https://web.whatsapp.com/"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("https://web.whatsapp.com:443/x?y", True),
        ("HTTPS://WEB.whatsapp.com", True),
        ("http://web.whatsapp.com/", False),
        ("https://web.whatsapp.com:444/", False),
        ("https://web.whatsapp.com.evil.example/", False),
        ("https://[::1", False),
        ("https://web.whatsapp.com:port/", False),
    ],
)
def test_scheme_host_and_port_decide(other: str, same: bool) -> None:
    assert same_origin(HOME, other) is same
    assert elsewhere(other.lower(), HOME) is not same


def test_what_is_no_page_of_the_web_is_not_elsewhere() -> None:
    assert same_origin("https://[::1", "https://[::1")
    assert not elsewhere("about:blank", HOME)
    assert not elsewhere("chrome-error://chromewebdata/", HOME)
