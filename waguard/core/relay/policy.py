"""What a client of the relay may ask of a session's browser: each method's verdict, where, and why. Pure.

A list of what is allowed, by domain, with exceptions by method: what is not in it is refused, also what a later Chromium brings.
Printed by `make reference`. What is *acted out* is answered or changed by `waguard.relay`, which knows the client's targets.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from waguard.core.relay import checks
from waguard.core.relay.checks import EVERYWHERE, PLACES, Check, Params, Seat, Where


class Verdict(StrEnum):
    ALLOWED = "allowed"
    OWNER = "owner"
    IGNORED = "ignored"
    ACTED = "acted out"
    REFUSED = "refused"


VERDICTS: Mapping[Verdict, str] = {
    Verdict.ALLOWED: "passed on",
    Verdict.OWNER: "passed on for the client that owns the page, and in a context that the client has made; else refused",
    Verdict.IGNORED: "answered with `{}`, and not passed on",
    Verdict.ACTED: "answered by waguard, or passed on changed or filtered, so that it is about what the client may see",
    Verdict.REFUSED: "answered with the error -32000, `waguard: METHOD is refused (REASON)`",
}


@dataclass(frozen=True, slots=True)
class Rule:
    method: str
    """Or ``Domain.*``: each other method of the domain."""
    verdict: Verdict
    reason: str
    where: frozenset[Where] = EVERYWHERE
    check: Check | None = None
    """Its docstring says what is looked at."""


@dataclass(frozen=True, slots=True)
class Judged:
    verdict: Verdict
    reason: str


_BROWSER = frozenset({Where.BROWSER})
_SHARED = frozenset({Where.BROWSER, Where.PAGE})
_NOT_BROWSER = frozenset({Where.PAGE, Where.OWN})
_COSTS = "it costs the login"
_LASTS = "it outlasts the client, and blinds the daemon's probes"
_CRASHES = "it ends what others use"
_SHOWN = "it ends with the client"
_LOOKS = "it looks, and changes nothing that others see"


def _each(
    methods: str,
    verdict: Verdict,
    reason: str,
    where: frozenset[Where] = EVERYWHERE,
    check: Check | None = None,
) -> Iterator[Rule]:
    yield from (Rule(method, verdict, reason, where, check) for method in methods.split())


POLICY: Sequence[Rule] = (
    # The browser
    *_each("Browser.close", Verdict.ACTED, "the client's attachment ends, and the browser stays"),
    *_each("Browser.crash Browser.crashGpuProcess Page.crash", Verdict.REFUSED, _CRASHES),
    *_each("Browser.getVersion", Verdict.ALLOWED, _LOOKS),
    *_each("Browser.getWindowForTarget Browser.getWindowBounds", Verdict.ALLOWED, _LOOKS),
    *_each(
        "Browser.setWindowBounds Browser.setContentsSize",
        Verdict.IGNORED,
        "a window that is minimized stays so, and draws nothing",
    ),
    *_each(
        "Browser.setDownloadBehavior Page.setDownloadBehavior Browser.cancelDownload",
        Verdict.IGNORED,
        "it writes to any path, for all of a context; downloads stay denied",
    ),
    *_each(
        "Browser.grantPermissions Browser.setPermission",
        Verdict.ALLOWED,
        "only in a context of the client's: what is not named is denied, also the daemon's own, and stays so",
        EVERYWHERE,
        checks.in_own_context,
    ),
    *_each("Browser.resetPermissions", Verdict.IGNORED, "the daemon's own would be gone for good"),
    # Targets
    *_each(
        "Target.createTarget",
        Verdict.ACTED,
        "it gives the session's own page, to one client at a time; in a context of its own a new one",
    ),
    *_each(
        "Target.closeTarget Page.close",
        Verdict.ACTED,
        "closing the session's page is acted out for this client alone",
    ),
    *_each(
        "Target.createBrowserContext",
        Verdict.ACTED,
        "it goes with the client: disposeOnDetach is set",
        EVERYWHERE,
        checks.without_proxy,
    ),
    *_each(
        "Target.disposeBrowserContext",
        Verdict.ALLOWED,
        "what the client has made",
        EVERYWHERE,
        checks.in_own_context,
    ),
    *_each(
        "Target.getTargets Target.getTargetInfo Target.getBrowserContexts Target.setDiscoverTargets",
        Verdict.ACTED,
        "other clients are not shown",
    ),
    *_each(
        "Target.attachToTarget Target.attachToBrowserTarget Target.detachFromTarget Target.activateTarget"
        " Target.setAutoAttach Target.autoAttachRelated Target.sendMessageToTarget",
        Verdict.ACTED,
        "only what the client may see, and in sessions of its own",
    ),
    *_each(
        "Target.exposeDevToolsProtocol Target.setRemoteLocations Target.openDevTools",
        Verdict.REFUSED,
        "it gives a page or another host the protocol",
    ),
    # The page
    *_each(
        "Page.navigate",
        Verdict.OWNER,
        "a navigation takes the page from everybody",
        _NOT_BROWSER,
        checks.goes,
    ),
    *_each(
        "Page.reload Page.navigateToHistoryEntry Page.stopLoading Page.setDocumentContent Page.setBypassCSP"
        " Page.resetNavigationHistory Page.setAdBlockingEnabled Page.setPrerenderingAllowed",
        Verdict.OWNER,
        "it changes the page for everybody",
    ),
    *_each(
        "Page.handleJavaScriptDialog",
        Verdict.ACTED,
        "first come; whoever is late is told that all is well",
    ),
    *_each("Page.setWebLifecycleState", Verdict.REFUSED, _LASTS),
    *_each(
        "Page.addCompilationCache Page.produceCompilationCache Page.clearCompilationCache",
        Verdict.REFUSED,
        "V8 trusts what it has compiled: a forged one is machine code",
    ),
    *_each(
        "Page.setFontSizes Emulation.setPageScaleFactor Emulation.setVisibleSize",
        Verdict.REFUSED,
        "it outlasts the client, and some of it a reload",
        _SHARED,
    ),
    *_each(
        "Page.deleteCookie",
        Verdict.REFUSED,
        _COSTS,
        _SHARED,
    ),
    *_each(
        "Page.setRPHRegistrationMode Page.startScreenRecording Page.stopScreenRecording",
        Verdict.REFUSED,
        "it is written into the profile, or recorded for nobody",
    ),
    *_each("Page.waitForDebugger", Verdict.REFUSED, "nobody is told that the page waits; Debugger.pause is"),
    *_each(
        "DOM.setFileInputFiles Page.handleFileChooser",
        Verdict.ACTED,
        "a browser opens what it is told to: only what was uploaded for it, by where it finds that",
        EVERYWHERE,
        checks.uploaded,
    ),
    *_each("Input.dispatchDragEvent", Verdict.OWNER, "who drives", EVERYWHERE, checks.drags_no_files),
    *_each(
        "Page.setFontFamilies Page.setSPCTransactionMode Page.setGeolocationOverride"
        " Page.clearGeolocationOverride Page.setDeviceOrientationOverride Page.clearDeviceOrientationOverride",
        Verdict.OWNER,
        _SHOWN,
    ),
    *_each("Page.*", Verdict.ALLOWED, "the page is what clients are here for"),
    # How the page is made to look
    *_each(
        "Emulation.setUserAgentOverride Network.setUserAgentOverride",
        Verdict.IGNORED,
        "the linked device would change its face with each client",
        _SHARED,
    ),
    *_each(
        "Emulation.setVirtualTimePolicy Emulation.setScriptExecutionDisabled",
        Verdict.REFUSED,
        _LASTS,
        _SHARED,
    ),
    *_each(
        "Emulation.setDeviceMetricsOverride Emulation.clearDeviceMetricsOverride Emulation.setTouchEmulationEnabled"
        " Emulation.setEmitTouchEventsForMouse Emulation.setEmulatedMedia Emulation.setFocusEmulationEnabled"
        " Emulation.setDefaultBackgroundColorOverride Emulation.canEmulate Emulation.getScreenInfos",
        Verdict.ALLOWED,
        "every driver sets it when it attaches; " + _SHOWN,
    ),
    *_each(
        "Emulation.addScreen Emulation.removeScreen Emulation.updateScreen Emulation.setPrimaryScreen",
        Verdict.REFUSED,
        "it outlasts the client",
    ),
    *_each("Emulation.*", Verdict.OWNER, _SHOWN),
    # The network and the storage
    *_each(
        "Network.clearBrowserCookies Network.clearBrowserCache Network.deleteCookies Network.setCookie Network.setCookies"
        " IndexedDB.deleteDatabase IndexedDB.clearObjectStore IndexedDB.deleteObjectStoreEntries DOMStorage.clear"
        " DOMStorage.removeDOMStorageItem DOMStorage.setDOMStorageItem CacheStorage.deleteCache CacheStorage.deleteEntry"
        " Network.deleteDeviceBoundSession",
        Verdict.REFUSED,
        _COSTS,
        _SHARED,
    ),
    *_each("Network.loadNetworkResource", Verdict.REFUSED, "it reads what the page itself may not"),
    *_each(
        "Network.enable Network.disable Network.getCookies Network.getAllCookies Network.getResponseBody"
        " Network.getRequestPostData Network.getSecurityIsolationStatus Network.enableReportingApi"
        " Network.searchInResponseBody Network.getCertificate Network.setAttachDebugStack Network.streamResourceContent",
        Verdict.ALLOWED,
        _LOOKS,
    ),
    *_each("Network.*", Verdict.OWNER, "it ends with the client", _NOT_BROWSER),
    *_each(
        "Fetch.enable",
        Verdict.REFUSED,
        "in the browser's session it holds the navigations of all pages",
        _BROWSER,
    ),
    *_each(
        "Fetch.continueRequest",
        Verdict.OWNER,
        "another address would answer in the page's own name",
        EVERYWHERE,
        checks.keeps_its_address,
    ),
    *_each("Fetch.*", Verdict.OWNER, "what is held goes on when the client leaves"),
    *_each("Storage.getCookies", Verdict.ALLOWED, _LOOKS, EVERYWHERE, checks.in_no_others_context),
    *_each(
        "Storage.getUsageAndQuota Storage.getStorageKey Storage.getStorageKeyForFrame",
        Verdict.ALLOWED,
        _LOOKS,
    ),
    *_each(
        "Storage.setCookies Storage.clearCookies",
        Verdict.ALLOWED,
        "only in a context of the client's",
        EVERYWHERE,
        checks.in_own_context,
    ),
    *_each("Storage.clearDataForOrigin Storage.clearDataForStorageKey", Verdict.REFUSED, _COSTS),
    *_each("ServiceWorker.enable ServiceWorker.disable", Verdict.ALLOWED, _LOOKS),
    *_each("IndexedDB.* DOMStorage.* CacheStorage.*", Verdict.ALLOWED, _LOOKS),
    *_each(
        "Security.setIgnoreCertificateErrors",
        Verdict.ALLOWED,
        "certificates are checked",
        EVERYWHERE,
        checks.checks_certificates,
    ),
    *_each("Security.enable Security.disable", Verdict.ALLOWED, _LOOKS),
    # What is measured
    *_each("Tracing.start", Verdict.OWNER, "one at a time, and into no file", EVERYWHERE, checks.as_stream),
    *_each("Tracing.end Tracing.getCategories", Verdict.OWNER, "whoever has started it"),
    *_each("IO.read IO.close", Verdict.ALLOWED, "what was opened for it", EVERYWHERE, checks.own_handle),
    *_each("IO.resolveBlob", Verdict.ALLOWED, _LOOKS),
    *_each("HeapProfiler.* Profiler.*", Verdict.OWNER, "it slows the page down"),
    *_each("Memory.getDOMCounters", Verdict.ALLOWED, _LOOKS),
    *_each("Performance.* PerformanceTimeline.*", Verdict.ALLOWED, _LOOKS),
    *_each(
        "LayerTree.loadSnapshot",
        Verdict.REFUSED,
        "it draws whatever it is given, and is not made for what strangers give it",
    ),
    # What drivers live on
    *_each("Debugger.*", Verdict.ALLOWED, "who pauses is noted, and what is paused goes on when it leaves"),
    *_each("Runtime.*", Verdict.ALLOWED, "scripts are what clients are here for"),
    *_each(
        "Accessibility.* Animation.* Audits.* CSS.* Console.* DOM.* DOMDebugger.* DOMSnapshot.* EventBreakpoints.*"
        " Inspector.* LayerTree.* Log.* Media.* Overlay.* Schema.* WebAudio.*",
        Verdict.ALLOWED,
        "it ends with the client",
    ),
    *_each(
        "WebMCP.enable WebMCP.disable",
        Verdict.IGNORED,
        "puppeteer asks it of each page; such tools are no bot's",
    ),
    *_each(
        "Input.dispatchKeyEvent",
        Verdict.ALLOWED,
        "a key goes to the page: the browser's own shortcuts close it, and open pages that may do everything",
        EVERYWHERE,
        checks.of_the_page,
    ),
    *_each("Input.*", Verdict.ALLOWED, "keys and clicks are what clients are here for"),
    *_each("DeviceOrientation.* WebAuthn.*", Verdict.OWNER, _SHOWN),
)


def _by_method(rules: Sequence[Rule]) -> Mapping[str, Sequence[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        found.setdefault(rule.method, []).append(rule)
    return found


_RULES = _by_method(POLICY)
_METHOD = re.compile(r"(?P<domain>[A-Z][A-Za-z]{1,40})\.[a-z][A-Za-z]{1,80}", re.ASCII)


def judge(method: str, params: Params, seat: Seat) -> Judged:
    """What becomes of such a command. The exact method goes before its domain; what is in no rule is refused."""
    form = _METHOD.fullmatch(method)
    if form is None:
        return Judged(Verdict.REFUSED, "it is no method")
    for name in (method, f"{form['domain']}.*"):
        for rule in _RULES.get(name, ()):
            if seat.where in rule.where:
                return _apply(rule, params, seat)
    return Judged(Verdict.REFUSED, "it is not in the policy")


def _apply(rule: Rule, params: Params, seat: Seat) -> Judged:
    if rule.check is not None and (why := rule.check(params, seat)):
        return Judged(Verdict.REFUSED, why)
    if rule.verdict is not Verdict.OWNER:
        return Judged(rule.verdict, rule.reason)
    if seat.owner or seat.where is Where.OWN:
        return Judged(Verdict.ALLOWED, rule.reason)
    return Judged(
        Verdict.REFUSED, f"{rule.reason}; the page is not this client's: open it first, by newPage()"
    )


# --- as a page ---------------------------------------------------------------------------------------------


def page() -> Iterator[str]:
    """The reference, in Markdown."""
    yield "# The relay's policy"
    yield ""
    yield "<!-- Made by `make reference`; a test keeps it so. -->"
    yield ""
    yield "What a client that drives a session may ask of its browser. What is not in the table is refused. The first row of a method"
    yield "that fits where it is asked holds; `Domain.*` is each method of the domain that has no row of its own there."
    yield ""
    yield from (f"- *{verdict}*: {says}" for verdict, says in VERDICTS.items())
    yield ""
    yield from (f"- in *{where}*: {says}" for where, says in PLACES.items())
    yield ""
    yield "| method | in | verdict | why | what else is looked at |"
    yield "|---|---|---|---|---|"
    for rule in POLICY:
        where = "all" if rule.where == EVERYWHERE else ", ".join(one for one in Where if one in rule.where)
        check = " ".join((rule.check.__doc__ or "").split()) if rule.check is not None else ""
        yield f"| `{rule.method}` | {where} | {rule.verdict} | {rule.reason} | {check} |"
