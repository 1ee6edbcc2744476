"""What a client of the relay may ask: the table is whole, and what costs a login, blinds a probe or reaches the host is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.relay.checks import Seat, Where, at_home, led_home
from waguard.core.relay.policy import POLICY, Judged, Verdict, judge, page
from waguard.relay.acts import ACTS

HOME = "https://web.whatsapp.com"
UPLOAD = "/uploads/00112233aabbccdd/a b.pdf"
OWNER = Seat(Where.PAGE, owner=True, home=HOME, contexts={"own"}, handles={"1"}, uploads={UPLOAD})
GUEST = Seat(Where.PAGE, owner=False, home=HOME, contexts={"own"})
BROWSER = Seat(Where.BROWSER, owner=True, home=HOME, contexts={"own"})
OWN = Seat(Where.OWN, owner=False, home=HOME, contexts={"own"})

REFUSED: list[tuple[Seat, str, dict[str, Any]]] = [
    (BROWSER, "Browser.crash", {}),
    (OWNER, "Page.crash", {}),
    *((OWNER, "Page.navigate", {"url": url}) for url in (
        "file:///etc/passwd", "view-source:file:///etc/passwd", "chrome://kill", "https://evil.example/",
        "https://web.whatsapp.com.evil.example/", "https://web.whatsapp.com@evil.example/", "https://web.whatsapp.com:81/",
        "https://evil.example\\@web.whatsapp.com/", " https://web.whatsapp.com/", "http://web.whatsapp.com/",
        "https://web.whatsapp.com\t.evil.example/", "javascript:1", "about:gpu", "data:text/html,x", "blob:https://web.whatsapp.com/x",
    )),
    *((OWN, "Page.navigate", {"url": url}) for url in (
        "file:///etc/passwd", "chrome://crash", "about:gpu", "view-source:http://x/", "filesystem:http://x/", "FILE:///x", " file:///x",
    )),
    (GUEST, "Page.navigate", {"url": HOME}),
    (GUEST, "Page.reload", {}),
    (OWNER, "Page.setWebLifecycleState", {"state": "frozen"}),
    (OWNER, "Emulation.setVirtualTimePolicy", {"policy": "pause"}),
    (OWNER, "Emulation.setScriptExecutionDisabled", {"value": True}),
    *((OWNER, method, {"files": files}) for method in ("DOM.setFileInputFiles", "Page.handleFileChooser") for files in (
        ["/etc/passwd"], ["/profile/Default/Cookies"], [UPLOAD, "/etc/passwd"], ["/uploads"], ["/uploads/00112233aabbccdd"],
        [f"{UPLOAD}/"], [UPLOAD[1:]], [f"{UPLOAD}\0"], [f"/uploads/../{UPLOAD}"], ["/uploads/00112233aabbccdd/../../etc/passwd"],
        ["/uploads/00112233aabbccdd/./a b.pdf"], [UPLOAD.upper()], ["/uploads/ffffffffffffffff/a b.pdf"], UPLOAD, {UPLOAD: 1}, [[UPLOAD]], [None], [1],
    )),
    (BROWSER, "DOM.setFileInputFiles", {"files": [UPLOAD]}),  # of another session
    (OWNER, "Input.dispatchDragEvent", {"data": {"files": ["/etc/passwd"]}}),
    *((OWNER, "Input.dispatchDragEvent", {"data": {"items": [{"mimeType": mime, "data": "file:///etc/passwd"}]}}) for mime in (
        "text/uri-list", "Text/URI-List", "text/x-moz-url", "", None,
    )),
    (OWNER, "Input.dispatchDragEvent", {"data": {"items": [7]}}),
    (OWNER, "Input.dispatchDragEvent", {"data": {"items": {"mimeType": "text/plain"}}}),
    (OWNER, "Network.loadNetworkResource", {"url": "http://127.0.0.1/"}),
    (OWNER, "Network.clearBrowserCookies", {}),
    (OWNER, "IndexedDB.deleteDatabase", {"databaseName": "wawc"}),
    (OWNER, "ServiceWorker.unregister", {}),
    (BROWSER, "Storage.clearDataForOrigin", {"origin": HOME}),
    (BROWSER, "Storage.setCookies", {}),
    (BROWSER, "Storage.clearCookies", {"browserContextId": "another's"}),
    (BROWSER, "Security.setIgnoreCertificateErrors", {"ignore": True}),
    (BROWSER, "Security.setIgnoreCertificateErrors", {}),
    (BROWSER, "Fetch.enable", {}),
    (BROWSER, "Target.createBrowserContext", {"proxyServer": "http://evil"}),
    (BROWSER, "Target.disposeBrowserContext", {"browserContextId": "another's"}),
    (BROWSER, "Target.exposeDevToolsProtocol", {"targetId": "T"}),
    (BROWSER, "Tracing.start", {}),
    (BROWSER, "Tracing.start", {"transferMode": "ReturnAsStream", "tracingBackend": "system"}),
    (BROWSER, "Tracing.start", {"transferMode": "ReturnAsStream", "perfettoConfig": "CgA="}),
    *((OWNER, "Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "w", "modifiers": 2, **native}) for native in (
        {"nativeVirtualKeyCode": 87}, {"nativeVirtualKeyCode": 0}, {"isSystemKey": True},
    )),
    *((OWNER, "Fetch.continueRequest", {"requestId": "1", "url": url}) for url in (
        "http://127.0.0.1:8717/v1/sessions", "https://evil.example/", "file:///etc/passwd", "data:text/html,x",
    )),
    (GUEST, "Fetch.continueRequest", {"requestId": "1"}),
    (GUEST, "Page.setGeolocationOverride", {}),
    *((OWNER, method, {}) for method in (
        "Page.deleteCookie", "Network.deleteDeviceBoundSession", "Page.setRPHRegistrationMode", "Page.startScreenRecording", "LayerTree.loadSnapshot",
        "Page.setFontSizes", "Emulation.setPageScaleFactor", "Emulation.setVisibleSize",
    )),
    (BROWSER, "SystemInfo.getProcessInfo", {}),
    (BROWSER, "Browser.getBrowserCommandLine", {}),
    (BROWSER, "Browser.grantPermissions", {"origin": HOME, "permissions": ["notifications"]}),
    (OWNER, "Browser.setPermission", {"origin": HOME, "permission": {"name": "persistent-storage"}, "setting": "denied"}),
    (OWNER, "Emulation.addScreen", {}),
    (OWNER, "Page.addCompilationCache", {"url": HOME, "data": ""}),
    *((BROWSER, method, {"browserContextId": [], "handle": {}, "origin": []}) for method in (
        "Browser.grantPermissions", "Target.disposeBrowserContext", "Storage.setCookies", "Storage.getCookies", "IO.read", "IO.close",
    )),
    (BROWSER, "Browser.grantPermissions", {"origin": HOME, "permissions": [], "browserContextId": "another's"}),
    (BROWSER, "Storage.getCookies", {"browserContextId": "another's"}),
    (OWNER, "Page.waitForDebugger", {}),
    (BROWSER, "IO.read", {"handle": "1"}),
    (OWNER, "IO.read", {"handle": "2"}),
    *((BROWSER, method, {}) for method in (
        "Extensions.loadUnpacked", "PWA.install", "BluetoothEmulation.enable", "Tethering.bind", "Autofill.trigger", "Nothing.known",
        "Runtime", "Runtime.", ".evaluate", "runtime.evaluate", "Runtime.evaluate ", "Runtime.evaluate\0", "Runtime.Evaluate", "Runtime.*", "", "*",
    )),
]  # fmt: skip
ALLOWED: list[tuple[Seat, str, dict[str, Any]]] = [
    (GUEST, "Runtime.evaluate", {"expression": "1"}),
    (GUEST, "Page.captureScreenshot", {}),
    (GUEST, "Network.enable", {}),
    (GUEST, "Emulation.setDeviceMetricsOverride", {}),
    *((OWNER, "Page.navigate", {"url": HOME + end}) for end in ("", "/", "?a=b", "#x", "/x?y")),
    (OWNER, "Page.navigate", {"url": "about:blank"}),
    (OWNER, "Page.navigate", {"url": 1}),  # the browser says what is wrong with it
    (BROWSER, "Tracing.start", {"transferMode": "ReturnAsStream"}),
    (OWN, "Page.navigate", {"url": "https://example.com/"}),
    (
        GUEST,
        "Input.dispatchKeyEvent",
        {
            "type": "rawKeyDown",
            "key": "a",
            "modifiers": 2,
            "windowsVirtualKeyCode": 65,
            "commands": ["selectAll"],
        },
    ),
    (OWNER, "Input.dispatchDragEvent", {"data": {"items": [{"mimeType": "text/plain", "data": "x"}]}}),
    (OWNER, "Input.dispatchDragEvent", {"data": 7}),
    (OWNER, "Fetch.continueRequest", {"requestId": "1"}),
    (OWN, "Fetch.continueRequest", {"requestId": "1", "url": "https://example.com/"}),
    (OWN, "Network.clearBrowserCookies", {}),
    (OWN, "Emulation.setUserAgentOverride", {"userAgent": "x"}),
    (OWNER, "Emulation.setTimezoneOverride", {}),
    (BROWSER, "Storage.setCookies", {"browserContextId": "own"}),
    (BROWSER, "Browser.grantPermissions", {"origin": HOME, "permissions": [], "browserContextId": "own"}),
    (OWNER, "IO.read", {"handle": "1"}),
]
ACTED: list[tuple[Seat, str, dict[str, Any]]] = [
    (OWNER, "DOM.setFileInputFiles", {"files": []}),
    (OWNER, "DOM.setFileInputFiles", {"files": [UPLOAD, UPLOAD]}),
    (OWNER, "DOM.setFileInputFiles", {}),
    (OWNER, "Page.handleFileChooser", {"action": "accept", "files": [UPLOAD]}),
]
IGNORED: list[tuple[Seat, str, dict[str, Any]]] = [
    (OWNER, "Network.setUserAgentOverride", {"userAgent": "x"}),
    (BROWSER, "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": "/profile"}),
    (BROWSER, "Browser.resetPermissions", {}),
]


@pytest.mark.parametrize(("seat", "method", "params"), REFUSED)
def test_it_is_refused_with_a_reason(seat: Seat, method: str, params: dict[str, Any]) -> None:
    judged = judge(method, params, seat)
    assert judged.verdict is Verdict.REFUSED
    assert judged.reason


@pytest.mark.parametrize(("seat", "method", "params"), ALLOWED)
def test_it_is_passed_on(seat: Seat, method: str, params: dict[str, Any]) -> None:
    assert judge(method, params, seat).verdict is Verdict.ALLOWED


@pytest.mark.parametrize(("seat", "method", "params"), ACTED)
def test_it_is_acted_out(seat: Seat, method: str, params: dict[str, Any]) -> None:
    assert judge(method, params, seat).verdict is Verdict.ACTED


@given(st.lists(st.text(alphabet="/.upload0123456789abcdef \0", max_size=40)))
def test_no_file_is_named_but_what_was_uploaded(files: list[str]) -> None:
    refused = judge("DOM.setFileInputFiles", {"files": files}, OWNER).verdict is Verdict.REFUSED
    assert refused is any(one != UPLOAD for one in files)


@pytest.mark.parametrize(("seat", "method", "params"), IGNORED)
def test_it_is_answered_and_not_passed_on(seat: Seat, method: str, params: dict[str, Any]) -> None:
    assert judge(method, params, seat).verdict is Verdict.IGNORED


def test_what_the_table_says_is_acted_out_is_and_nothing_else() -> None:
    assert {one.method for one in POLICY if one.verdict is Verdict.ACTED} == ACTS.keys()


def test_no_row_can_never_hold() -> None:
    seen: dict[str, set[Where]] = {}
    for rule in POLICY:
        assert rule.reason, rule.method
        assert rule.where - seen.get(rule.method, set()), (
            f"{rule.method}: a row before it holds wherever it would"
        )
        seen[rule.method] = seen.get(rule.method, set()) | rule.where
        assert rule.check is None or rule.check.__doc__


def test_no_domain_is_passed_on_whole_that_has_no_row() -> None:
    for domain in (
        "Browser",
        "Target",
        "Storage",
        "Security",
        "SystemInfo",
        "Memory",
        "ServiceWorker",
        "Tracing",
        "IO",
    ):
        assert judge(f"{domain}.somethingNew", {}, OWNER) == Judged(
            Verdict.REFUSED, "it is not in the policy"
        )


def test_a_bot_that_goes_to_whatsapp_gets_the_page_that_there_is() -> None:
    simulated = Seat(Where.PAGE, owner=True, home="http://127.0.0.1:8718")
    asked = {"url": f"{HOME}/?a=b", "referrer": "https://whatsapp.com/"}
    assert led_home("Page.navigate", asked, simulated) == {**asked, "url": "http://127.0.0.1:8718/?a=b"}
    assert led_home("Page.navigate", asked, OWNER) == asked
    for method, params, seat in (
        ("Page.navigate", asked, OWN),
        ("Page.reload", asked, simulated),
        ("Page.navigate", {"url": f"{HOME}.evil.example/"}, simulated),
        ("Page.navigate", {"url": 1}, simulated),
        ("Page.navigate", {}, simulated),
    ):
        assert led_home(method, params, seat) is params


@given(st.text(max_size=30))
def test_only_what_is_of_the_origin_is_at_home(rest: str) -> None:
    """Whatever follows, the browser's own parser ends the authority at the first of these."""
    assert at_home(HOME + rest, HOME) is (not rest or rest[0] in "/?#")


def test_its_page_has_every_row_in_order() -> None:
    rows = [line.split("`")[1] for line in page() if line.startswith("| `")]
    assert rows == [rule.method for rule in POLICY]
