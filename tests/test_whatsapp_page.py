"""From signs to a verdict: a table, and whatever a hostile page may send."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.model import Link, Reading, Reason
from waguard.whatsapp.page import masked, part, read, says_logged_out, together

QR = "2@abc+/=,noise=,identity=,adv=,1"
URL = "https://web.whatsapp.com/"
LOGGED_OUT_URL = f"{URL}?post_logout=1&logout_reason=0"

BLANK: dict[str, Any] = {
    "url": URL,
    "title": "WhatsApp Web",
    "app": True,
    "version": None,
    "splash": False,
    "state": None,
    "stream": None,
    "synced": False,
    "mode": None,
    "qr": None,
    "reload": False,
    "pairing": False,
    "panes": False,
    "progress": False,
    "use_here": False,
    "dialog": None,
    "refused": False,
    "logged_in": False,
    "storage_error": None,
    "online": True,
    "wid": None,
    "push_name": None,
    "ready": None,
    "error": None,
    "status": None,
    "bar": None,
    "resources": None,
}


def verdict(**signs: Any) -> tuple[Link, Reason | None]:
    reading = read({**BLANK, **signs})
    return reading.link, reading.reason


@pytest.mark.parametrize(
    ("signs", "link", "reason"),
    [
        pytest.param({}, Link.UNKNOWN, None, id="an app with no signs"),
        pytest.param({"url": "about:blank", "app": False}, Link.UNKNOWN, None, id="not there yet"),
        pytest.param({"splash": True}, Link.LOADING, None, id="splash"),
        pytest.param({"splash": True, "progress": True}, Link.LOADING, None, id="splash, progress"),
        pytest.param({"state": "OPENING"}, Link.LOADING, None, id="opening"),
        pytest.param({"state": "OPENING", "logged_in": True}, Link.LOADING, None, id="opening with a login"),
        pytest.param({"state": "UNPAIRED"}, Link.LOADING, None, id="spinner before the code"),
        pytest.param(
            {"state": "UNPAIRED", "pairing": True}, Link.AWAITING_SCAN, None, id="a code for the phone"
        ),
        pytest.param(
            {"state": "CONNECTED", "pairing": True}, Link.SYNCING, None, id="a code for the phone, used"
        ),
        pytest.param({"state": "PAIRING", "qr": QR}, Link.LOADING, None, id="scanned"),
        pytest.param({"state": "UNPAIRED", "qr": QR}, Link.AWAITING_SCAN, None, id="code"),
        pytest.param({"qr": QR}, Link.AWAITING_SCAN, None, id="code, modules out of reach"),
        pytest.param({"state": "UNPAIRED_IDLE"}, Link.AWAITING_SCAN, None, id="codes used up"),
        pytest.param(
            {"state": "UNPAIRED", "qr": QR, "use_here": True}, Link.AWAITING_SCAN, None, id="dialogue"
        ),
        pytest.param({"state": "CONNECTED", "stream": "SYNCING"}, Link.SYNCING, None, id="not synced yet"),
        pytest.param({"state": "CONNECTED", "synced": None}, Link.SYNCING, None, id="hasSynced out of reach"),
        pytest.param(
            {"logged_in": True, "progress": True}, Link.SYNCING, None, id="syncing, modules out of reach"
        ),
        pytest.param({"state": "CONNECTED", "synced": True}, Link.CONNECTED, None, id="synced"),
        pytest.param(
            {"state": "CONNECTED", "synced": True, "stream": "RESUMING"}, Link.CONNECTED, None, id="resuming"
        ),
        pytest.param({"panes": True}, Link.CONNECTED, None, id="chats, modules out of reach"),
        pytest.param({"state": "OPENING", "panes": True}, Link.SYNCING, None, id="chats, reconnecting"),
        pytest.param(
            {"state": "CONNECTED", "synced": True, "use_here": True},
            Link.CONNECTED,
            None,
            id="other dialogue",
        ),
        pytest.param(
            {"state": "CONNECTED", "synced": True, "online": False}, Link.CONNECTED, None, id="only loopback"
        ),
        pytest.param({"url": LOGGED_OUT_URL}, Link.LOST, Reason.LOGGED_OUT, id="logged out"),
        pytest.param(
            {"url": LOGGED_OUT_URL, "splash": True}, Link.LOST, Reason.LOGGED_OUT, id="logged out, splash"
        ),
        pytest.param(
            {"url": LOGGED_OUT_URL, "qr": QR},
            Link.AWAITING_SCAN,
            Reason.LOGGED_OUT,
            id="logged out, new code",
        ),
        pytest.param(
            {"url": LOGGED_OUT_URL, "state": "OPENING", "logged_in": True},
            Link.LOADING,
            None,
            id="paired again",
        ),
        pytest.param(
            {"url": LOGGED_OUT_URL, "state": "CONNECTED", "synced": True},
            Link.CONNECTED,
            None,
            id="back again",
        ),
        pytest.param({"state": "CONFLICT"}, Link.LOST, Reason.CONFLICT, id="conflict by state"),
        pytest.param({"mode": "CONFLICT"}, Link.LOST, Reason.CONFLICT, id="conflict by mode"),
        pytest.param({"use_here": True}, Link.LOST, Reason.CONFLICT, id="conflict by its button"),
        pytest.param({"refused": True, "app": False}, Link.LOST, Reason.REFUSED, id="browser refused"),
        pytest.param({"refused": True, "qr": QR}, Link.AWAITING_SCAN, None, id="an advertisement"),
        *(
            pytest.param({word: state}, Link.LOST, reason, id=f"{word} {state}")
            for word in ("state", "mode")
            for state, reason in (
                ("DEPRECATED_VERSION", Reason.OUTDATED),
                ("TOS_BLOCK", Reason.TERMS_BLOCKED),
                ("SMB_TOS_BLOCK", Reason.TERMS_BLOCKED),
                ("PROXYBLOCK", Reason.PROXY_BLOCKED),
            )
        ),
        pytest.param({"state": "TIMEOUT", "logged_in": True}, Link.LOST, Reason.OFFLINE, id="timeout"),
        pytest.param({"mode": "OFFLINE", "panes": True}, Link.LOST, Reason.OFFLINE, id="offline"),
        pytest.param(
            {"state": "OPENING", "logged_in": True, "online": False},
            Link.LOST,
            Reason.OFFLINE,
            id="no network",
        ),
        pytest.param({"state": "TIMEOUT"}, Link.LOST, Reason.OFFLINE, id="timeout before any login"),
        pytest.param({"url": "chrome-error://chromewebdata/"}, Link.LOST, Reason.OFFLINE, id="error page"),
    ],
)
def test_verdict(signs: dict[str, Any], link: Link, reason: Reason | None) -> None:
    assert verdict(**signs) == (link, reason)


@pytest.mark.parametrize("code", [{}, {"qr": QR}])
def test_a_page_that_has_a_login_and_is_not_paired_waits_for_a_scan(code: dict[str, Any]) -> None:
    assert verdict(state="UNPAIRED", logged_in=True, **code) == (Link.AWAITING_SCAN, None)
    assert read({**BLANK, "state": "UNPAIRED", "logged_in": True, **code}).marks is True
    over_chats = {"state": "UNPAIRED", "logged_in": True, "panes": True}
    assert verdict(**over_chats) == (Link.LOST, Reason.UNPAIRED)
    assert read({**BLANK, **over_chats}, logged_out=True).reason is Reason.LOGGED_OUT


@pytest.mark.parametrize("state", ["UNLAUNCHED", "OPENING", "PAIRING"])
def test_chats_whose_socket_is_on_its_way_are_cut_off(state: str) -> None:
    over_chats = read({**BLANK, "state": state, "logged_in": True, "panes": True})
    assert (over_chats.link, over_chats.cut_off) == (Link.SYNCING, True)
    assert read({**BLANK, "state": state, "logged_in": True}).cut_off is (state == "OPENING"), "it boots"
    assert not read({**BLANK, "state": "CONNECTED", "panes": True}).cut_off


@pytest.mark.parametrize("boot", [{"splash": True}, {"state": "OPENING"}, {}])
def test_an_address_that_the_page_has_left_again_tells_as_well(boot: dict[str, Any]) -> None:
    assert says_logged_out(LOGGED_OUT_URL)
    assert not says_logged_out(URL)
    assert not says_logged_out("http://[?post_logout=1")
    reading = read({**BLANK, **boot}, logged_out=True)
    assert (reading.link, reading.reason) == (Link.LOST, Reason.LOGGED_OUT)
    assert read({**BLANK, "qr": QR}, logged_out=True).reason is Reason.LOGGED_OUT
    assert read({**BLANK, "state": "CONNECTED", "synced": True}, logged_out=True).link is Link.CONNECTED


@pytest.mark.parametrize(
    ("signs", "link", "reason", "dialog"),
    [
        ({"state": "CONNECTED", "synced": True, "dialog": "whats_new"}, Link.CONNECTED, None, "whats_new"),
        ({"state": "CONNECTED", "synced": True, "dialog": "use_here"}, Link.CONNECTED, None, "use_here"),
        ({"panes": True, "dialog": "chats of somebody"}, Link.CONNECTED, None, "unknown"),
        ({"panes": True, "dialog": ["whats_new"]}, Link.CONNECTED, None, "unknown"),
        ({"dialog": "use_here", "use_here": True}, Link.LOST, Reason.CONFLICT, None),
        *(
            ({"state": state, "dialog": reason.value}, Link.AWAITING_SCAN, reason, reason.value)
            for reason in (Reason.PASSKEY_REQUIRED, Reason.PASSKEY_CONFIRMATION)
            for state in ("PAIRING", "UNPAIRED", None)
        ),
        (
            {"state": "CONNECTED", "synced": True, "dialog": "passkey_required"},
            Link.CONNECTED,
            None,
            "passkey_required",
        ),
    ],
)
def test_a_dialog_is_known_by_its_kind(
    signs: dict[str, Any], link: Link, reason: Reason | None, dialog: str | None
) -> None:
    reading = read({**BLANK, "qr": None, **signs})
    assert (reading.link, reading.reason, reading.dialog) == (link, reason, dialog)


@pytest.mark.parametrize(
    "where",
    ["http://web.whatsapp.com/", "https://evil.example/?post_logout=1", "https://web.whatsapp.com:444/"],
)
def test_a_page_at_another_origin_is_not_connected(where: str) -> None:
    reading = read({**BLANK, "url": where, "state": "CONNECTED", "synced": True, "qr": QR}, home=URL)
    assert (reading.link, reading.reason, reading.qr) == (Link.LOST, Reason.ELSEWHERE, None)


@pytest.mark.parametrize("where", [URL, LOGGED_OUT_URL, "https://web.whatsapp.com:443/x", "about:blank", ""])
def test_a_page_at_home_is_not_elsewhere(where: str) -> None:
    assert (
        read({**BLANK, "url": where, "state": "CONNECTED", "synced": True}, home=URL).link is Link.CONNECTED
    )


@pytest.mark.parametrize(
    ("signs", "cut_off"),
    [
        ({"state": "OPENING", "panes": True, "stream": "DISCONNECTED"}, True),
        ({"state": "OPENING", "logged_in": True}, True),
        ({"state": "OPENING"}, False),
        ({"state": "CONNECTED", "panes": True, "stream": "SYNCING"}, False),
        ({"state": "OPENING", "panes": True, "mode": "OFFLINE"}, False),  # that is said already
    ],
)
def test_who_has_a_login_and_only_opens_its_way_to_whatsapp_is_cut_off(
    signs: dict[str, Any], cut_off: bool
) -> None:
    assert read({**BLANK, **signs}).cut_off is cut_off


@pytest.mark.parametrize(
    ("signs", "shown"),
    [
        ({"url": URL, "status": 500}, {"HTTP 500", "https://web.whatsapp.com"}),
        ({"url": "http://portal.example:80/?token=x", "status": 200}, {"HTTP 200", "http://portal.example"}),
        ({"url": "about:blank", "status": 0}, {"about:blank"}),
        ({"url": "data:text/html,\x1b[31mhello", "status": 0}, {"an address that is not told"}),
        ({"url": "http://[", "status": True}, {"an address that is none"}),
    ],
)
def test_a_whole_page_that_is_none_of_whatsapps_is_a_wrong_one(
    signs: dict[str, Any], shown: set[str]
) -> None:
    reading = read({**BLANK, "app": False, "ready": "complete", **signs})
    assert (reading.link, reading.wrong, set(reading.signs)) == (Link.UNKNOWN, True, shown)
    for still in ({"ready": "loading"}, {"ready": None}, {"app": None, "status": 200}):
        assert not read({**BLANK, "app": False, "ready": "complete", **signs, **still}).wrong


def test_an_error_of_whatsapps_own_server_is_a_wrong_page_and_the_app_with_nothing_known_is_none() -> None:
    assert read({**BLANK, "ready": "complete", "status": 503}).wrong
    assert not read({**BLANK, "ready": "complete", "status": 200}).wrong


def test_the_error_page_says_which() -> None:
    reading = read({**BLANK, "app": False, "url": "chrome-error://chromewebdata/", "error": "ERR_TIMED_OUT"})
    assert reading.signs == ("error page", "net::ERR_TIMED_OUT")


def test_a_page_that_gets_on_is_no_other_reading() -> None:
    one, two = ({**BLANK, "splash": True, "bar": bar, "resources": 3} for bar in (10, 11.5))
    assert read(one) == read(two)
    assert read(one).progress != read(two).progress


def test_the_code_is_handed_on_whole_with_the_signs_that_led_to_it() -> None:
    reading = read({**BLANK, "state": "UNPAIRED", "qr": QR, "version": "2.3000.1"})
    assert reading == Reading(
        Link.AWAITING_SCAN,
        qr=QR,
        marks=False,
        page_version="2.3000.1",
        signs=("Socket.state=UNPAIRED", "data-ref", "app"),
    )


@pytest.mark.parametrize("signs", [{"reload": True}, {"state": "UNPAIRED_IDLE"}])
def test_a_code_that_is_used_up_is_not_handed_on(signs: dict[str, Any]) -> None:
    reading = read({**BLANK, "qr": QR, **signs})
    assert (reading.link, reading.qr, reading.qr_exhausted) == (Link.AWAITING_SCAN, None, True)


@pytest.mark.parametrize(
    "qr", ["", "x" * 1025, "2@a\nb", "2@\u202eabc", "2@\x00", 7, None, ["2@a"], {"a": 1}]
)
def test_what_cannot_be_a_code_is_none(qr: Any) -> None:
    assert read({**BLANK, "qr": qr}).qr is None
    assert verdict(qr=qr) == (Link.UNKNOWN, None)


@pytest.mark.parametrize(
    "qr", [f"https://wa.me/settings/linked_devices#{QR}", f"{QR},https://faq.whatsapp.com/r/ld"]
)
def test_newer_forms_of_the_code_are_opaque(qr: str) -> None:
    assert read({**BLANK, "qr": qr}).qr == qr


@pytest.mark.parametrize("signs", [None, [], "CONNECTED", 3, {}, {"url": 1, "panes": "yes", "synced": 1}])
def test_no_signs_are_no_verdict(signs: object) -> None:
    assert read(signs).link is Link.UNKNOWN


def test_long_and_strange_words_are_not_passed_on() -> None:
    reading = read(
        {**BLANK, "state": "X" * 65, "version": "1\x1b[31m", "mode": "\u2603", "storage_error": "a\nb"}
    )
    assert reading.page_version is None
    assert reading.signs == ("app",)


WID, NAME = "34600000001:12@c.us", "Tienda El Sol"


def account(**signs: Any) -> tuple[str | None, str | None]:
    told = {"logged_in": True, "state": "CONNECTED", "synced": True, "wid": f'"{WID}"', "push_name": NAME}
    reading = read({**BLANK, **told, **signs})
    return reading.wid, reading.push_name


def test_whose_number_it_is() -> None:
    assert account() == (WID, NAME)
    assert account(wid=WID) == (WID, NAME)
    assert account(state="TIMEOUT") == (WID, NAME), "offline is no other number"
    assert account(logged_in=False) == (None, None)
    assert account(state="UNPAIRED", qr=QR) == (None, None), "whoever scans next may be another"


@pytest.mark.parametrize(
    "wid", ["", '"', "demo", f"{WID}\n", "٣٤٦٠٠@c.us", "1" * 21 + "@c.us", f'"{WID}"<b>', 7, ["1@c.us"], None]
)
def test_what_cannot_be_a_number_is_none(wid: Any) -> None:
    assert account(wid=wid) == (None, NAME)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Jos\u00e9 \U0001f600", "Jos\u00e9 \U0001f600"),
        ("\x1b[2Jdemo\r\n", "[2Jdemo"),
        ("a\u202eb\u2066c", "abc"),
        ("x" * 500, "x" * 64),
        ("\t", None),
        ("", None),
        (None, None),
        (["demo"], None),
    ],
)
def test_a_name_moves_nothing_on_a_screen(told: Any, name: str | None) -> None:
    assert account(push_name=told) == (WID, name)


def test_a_log_gets_no_number() -> None:
    assert masked(WID) == "...001"
    assert masked("123@c.us") == "..."


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
STATES = st.sampled_from(
    ["UNPAIRED", "UNPAIRED_IDLE", "CONNECTED", "OPENING", "TIMEOUT", "CONFLICT", "TOS_BLOCK"]
)
URLS = (
    st.sampled_from([URL, LOGGED_OUT_URL, "http://[", "chrome-error://x", "data:,?post_logout"]) | st.text()
)
SIGNS = st.fixed_dictionaries(
    {},
    optional={
        name: JSON | (STATES if value is None else URLS if name == "url" else st.booleans())
        for name, value in BLANK.items()
    },
)


@given(JSON | SIGNS)
def test_arbitrary_json_gives_a_bounded_reading(signs: object) -> None:
    reading = read(signs)
    assert isinstance(reading, Reading)
    assert (reading.reason is None) <= (reading.link is not Link.LOST)
    assert reading.qr is None or (len(reading.qr) <= 1024 and reading.qr.isprintable())
    assert reading.qr is None or reading.link is Link.AWAITING_SCAN
    assert not reading.qr_exhausted or reading.qr is None
    assert sum(map(len, reading.signs)) < 1024
    assert all(
        len(text) <= 64 and text.isprintable() for text in (reading.wid or "", reading.push_name or "")
    )


def test_a_readers_part_is_called_and_a_reader_without_parts_is_taken_as_it_is() -> None:
    expression = part("({ signs() {} }); ", "signs", argument=True)
    assert expression == (
        "(probe => typeof probe.signs === 'function' ? probe.signs(true) : probe)(({ signs() {} })\n)"
    )


def test_the_pages_own_words_count_where_it_has_any() -> None:
    signs = {"splash": False, "state": None, "storage_error": "SecurityError"}
    words = {"state": "CONNECTED", "storage_error": None}
    assert together(signs, words) == {**signs, "state": "CONNECTED"}
    assert together(signs, "x" * 9) == signs
    assert together(None, words) is None
