"""The command line of a browser, each flag with its reason. Flags of Chromium 156.

Each of them was tried, alone and with the others, with headless-shell and with the full browser: a page loads with all of them.
"""

from collections.abc import Sequence
from pathlib import Path

from waguard.browser.find import Binary
from waguard.config.sections import Browser

_ALWAYS: Sequence[tuple[str, str]] = (
    (
        "--remote-debugging-pipe",
        "control over fds 3 and 4 instead of a TCP port that every local user could drive",
    ),
    ("--no-first-run", "no welcome page"),
    ("--no-default-browser-check", "no question"),
    (
        "--disable-breakpad",
        "no crash uploads; the handlers stay, since without them a full Chromium's network service dies at each start",
    ),
    ("--disable-background-networking", "no traffic but the page's"),
    ("--disable-component-update", "no downloads into the profile"),
    ("--disable-domain-reliability", "no reports about the page to third parties"),
    ("--disable-sync", "no account"),
    ("--disable-default-apps", "nothing but the page"),
    ("--disable-extensions", "nothing but the page"),
    ("--disable-client-side-phishing-detection", "no model downloads"),
    ("--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider", "no side services"),
    (
        "--disable-blink-features=AutomationControlled",
        "navigator.webdriver is false, as WhatsApp Web expects",
    ),
    (
        "--block-new-web-contents",
        "headless-shell opens no windows for its page, as a full Chromium opens none without a gesture: each costs a process",
    ),
    ("--disable-background-timer-throttling", "a page nobody looks at keeps its timers"),
    ("--disable-backgrounding-occluded-windows", "likewise"),
    ("--disable-renderer-backgrounding", "likewise"),
    ("--disable-gpu", "there is no GPU on a server; saves a failed start of it"),
    ("--password-store=basic", "no desktop keyring"),
    ("--use-mock-keychain", "likewise"),
    ("--mute-audio", "no sound device on a server"),
    ("--hide-scrollbars", "clean screenshots"),
    (
        "--enable-aggressive-domstorage-flushing",
        "localStorage is on disk a second after each change, not 5 s after the first and a minute after others: so long a kill loses a login",
    ),
    ("--disk-cache-size=52428800", "50 MiB; an unbounded cache is what fills disks"),
)


def user_agent(binary: Binary, configured: str) -> str:
    """The browser's own user agent without the word Headless, which WhatsApp Web refuses."""
    return configured or (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{binary.major}.0.0.0 Safari/537.36"
    )


def client_hints(binary: Binary) -> dict[str, object]:
    """``userAgentMetadata`` that goes with the user agent (DevTools protocol, Emulation.UserAgentMetadata)."""
    brands = [("Chromium", binary.version), ("Google Chrome", binary.version), ("Not:A-Brand", "8.0.0.0")]
    return {
        "brands": [{"brand": name, "version": version.split(".", 1)[0]} for name, version in brands],
        "fullVersionList": [{"brand": name, "version": version} for name, version in brands],
        "fullVersion": binary.version,
        "platform": "Linux",
        "platformVersion": "",
        "architecture": "x86",
        "bitness": "64",
        "model": "",
        "mobile": False,
    }


def _through(port: int | None) -> Sequence[str]:
    if port is None:
        return ()
    return (
        f"--proxy-server=http://127.0.0.1:{port}",
        "--proxy-bypass-list=<-loopback>",  # this machine, too: nothing goes round it
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    )


def command(binary: Binary, profile: Path, settings: Browser, proxy_port: int | None = None) -> list[str]:
    """Argv of one browser; ``profile`` is where the browser itself finds it, ``proxy_port`` of this machine its only way out."""
    return [
        str(binary.path),
        *(flag for flag, _reason in _ALWAYS),
        *(() if binary.headless_only else ("--headless=new",)),
        *(() if settings.chromium_sandbox else ("--no-sandbox",)),
        f"--user-data-dir={profile}",
        f"--user-agent={user_agent(binary, settings.user_agent)}",
        f"--lang={settings.language}",
        *settings.extra_flags,
        *_through(proxy_port),
        "about:blank",
    ]
