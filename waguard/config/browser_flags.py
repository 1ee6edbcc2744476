"""Which command-line flags a browser may be given besides its own, and what is said of the others."""

import re

# Flags that would undo what waguard promises; the text says what to do instead.
_FORBIDDEN = {
    "--no-sandbox": "set browser.chromium_sandbox = false instead",
    "--disable-setuid-sandbox": "set browser.chromium_sandbox = false instead",
    "--remote-debugging-port": "it would let every local user drive the client's WhatsApp",
    "--remote-debugging-address": "it would let every local user drive the client's WhatsApp",
    "--remote-debugging-pipe": "waguard sets it",
    "--user-data-dir": "waguard sets it, one per client",
    "--user-agent": "set browser.user_agent instead, which keeps the client hints in step",
    "--headless": "waguard sets it where the binary needs it",
    **dict.fromkeys(
        ("--incognito", "--guest", "--bwsi"), "what is scanned in it is forgotten when the browser ends"
    ),
    **dict.fromkeys(
        ("--disable-local-storage", "--disable-databases"), "that is where WhatsApp Web keeps the login"
    ),
    "--profile-directory": "the login is checked, saved and restored where the browser keeps it by itself",
    "--disk-cache-dir": "a cache belongs to one client's profile; its size is limited there",
    "--single-process": "a page would run in the browser's own process, without a sandbox, and end it when it crashes",
    **dict.fromkeys(
        (
            "--no-zygote",
            "--no-zygote-sandbox",
            "--disable-namespace-sandbox",
            "--disable-seccomp-filter-sandbox",
            "--disable-gpu-sandbox",
        ),
        "Chromium's own sandbox is made with it; set browser.chromium_sandbox = false to do without",
    ),
    "--disable-web-security": "whatever else the page loads could read the client's WhatsApp",
    "--disable-crashpad-for-testing": "without crash handlers a full Chromium's network service dies at each start",
    **dict.fromkeys(
        ("--dump-dom", "--screenshot", "--print-to-pdf", "--version", "--help"),
        "the browser would do that and end",
    ),
    "--no-startup-window": "there would be no page",
    "--type": "the browser gives it to processes of its own",
}
"""Each with its reason: what undoes a promise, keeps no login, or leaves no page."""
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
"""User and password in a URL."""


def flag_problem(flag: str) -> str:
    """What keeps a text from being a flag that may be given, and what to do instead. Empty if nothing does."""
    name, _, value = flag.partition("=")
    if not re.fullmatch(r"--[a-z0-9-]+", name):
        return f"{flag!r} is not a command-line flag; write --name or --name=value"
    if name in _FORBIDDEN:
        return f"{name} is not allowed here: {_FORBIDDEN[name]}"
    if value[:1] in {'"', "'"} or value[-1:] in {'"', "'"}:
        return f"{name} has quotes in its value, and there is no shell here to take them away"
    if CREDENTIALS.search(value) or (name == "--proxy-server" and "@" in value):
        return (
            f"{name} has a user and a password: a browser takes none here, and everybody on this machine could read "
            "them on its command line. Name it as proxy in [clients.CODE], or with waguard settings set"
        )
    return ""
