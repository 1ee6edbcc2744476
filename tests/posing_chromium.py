#!/usr/bin/python3
"""A small program that poses as Chromium: speaks enough of the DevTools protocol on fds 3 and 4, and misbehaves on request.

Give it as ``browser.path`` and a way to misbehave in ``browser.extra_flags``, for example ``--posing=never-ready``:

    ok              shows a QR code
    connected       is logged in
    slow            answers its first command after half a second
    never-ready     never answers
    dies-at-once    ends with exit code 3 and a word on stderr
    no-threads      likewise, as one does that is at a limit of processes
    no-renderer     at such a limit too, which it outlives: its page shows nothing but the splash screen
    dies-when-open  ends when it is sent to a page
    ignores-close   answers Browser.close and stays, and ignores SIGTERM
    leaves-a-stray  starts a process in a session of its own, which stays when this one ends
    leaves-a-dead   likewise, but it ends at once
    silent          its page never answers a look
    late-answers    its page answers each look after a third of a second
    talks-rubbish   writes something that is no JSON
    never-loads     its page shows nothing but the splash screen
    crashes         its page's renderer is gone as soon as it is opened
    grows           takes 64 MiB
    stops           stops itself by SIGSTOP
    deaf            answers looks at its page, and no longer what is asked of itself
    no-network      does not answer what its network service would know, until that one is ended
    not-drawn       draws nothing, until its GPU process is ended
    never-drawn     draws nothing, and a new GPU process is none the better
    gone            its page's renderer is gone, until the page is loaded again
    blocked         its page does not answer, until its renderer is ended and the page is loaded again
    loops           its page works without end, until that is terminated
    loops-on        its page works without end, until its renderer is ended and the page is loaded again
    offline         its page shows that it reaches WhatsApp no more
    cut-off         likewise, until it is loaded again
    no-storage      its page cannot use its storage, until it is loaded again
    conflict        WhatsApp is open elsewhere
    error-page      the server answers HTTP 500, until the page is loaded again
    outage          likewise, however often it is loaded
    leaves-late     likewise, and each time it is loaded again it shows first that it is logged in, until it was looked at some times
    no-way          nothing listens where its page is to come from
    unread          its page looks like WhatsApp Web, and says nothing that is known
    opening         its page opens its way to WhatsApp for ever
    syncing         its page syncs for ever, and nothing moves
    outdated        WhatsApp takes its page's version no more, until it is loaded again
    boots           its page shows the splash screen for a second and a half, and its bar moves

It takes up another pose when it finds a file of the name `posing` in its profile, which it deletes, or `posing-always`, which it
leaves to its successors.

Only the standard library, and any Python 3: it runs inside the sandbox. It is started some two thousand times, so it imports little.
"""

import json
import os
import signal
import sys
import time
from _thread import start_new_thread

SPLASH: "dict[str, object]" = {"splash": True}
QR: "dict[str, object]" = {
    "qr": "2@posing,noise,identity,adv,1",
    "state": "UNPAIRED",
}
CONNECTED: "dict[str, object]" = {
    "panes": True,
    "state": "CONNECTED",
    "synced": True,
}
SERVER_ERROR: "dict[str, object]" = {
    "app": False,
    "ready": "complete",
    "status": 500,
}
BOOT_S = 1.5
LEAVING_LOOKS = 6
SIGNS: "dict[str, dict[str, object]]" = {
    "ok": QR,
    "never-loads": SPLASH,
    "no-renderer": SPLASH,
    "offline": {**CONNECTED, "state": "TIMEOUT"},
    "cut-off": {**CONNECTED, "state": "TIMEOUT"},
    "no-storage": {**SPLASH, "storage_error": "QuotaExceededError"},
    "conflict": {**CONNECTED, "state": "CONFLICT"},
    "error-page": SERVER_ERROR,
    "outage": SERVER_ERROR,
    "leaves-late": SERVER_ERROR,
    "no-way": {"url": "chrome-error://chromewebdata/", "app": False, "ready": "complete"},
    "unread": {"app": True, "splash": False, "ready": "complete"},
    "opening": {**CONNECTED, "state": "OPENING", "stream": "DISCONNECTED"},
    "syncing": {**CONNECTED, "synced": False, "panes": False, "progress": True},
    "outdated": {**CONNECTED, "state": "DEPRECATED_VERSION"},
}
HELPERS = {
    "no-network": ("--type=utility", "--utility-sub-type=network.mojom.NetworkService"),
    "not-drawn": ("--type=gpu-process",),
    "never-drawn": ("--type=gpu-process",),
    "blocked": ("--type=renderer",),
    "loops-on": ("--type=renderer",),
}
"""What a helper process is for that the pose needs."""
LOADED_AGAIN = {"gone", "cut-off", "no-storage", "error-page", "outdated"}
"""A pose that ends when the page is loaded again."""


class Posing:
    """How it poses now; ``usual``: what it returns to."""

    now = usual = ""
    url = "about:blank"
    helper = 0
    scanned = 0
    opened = 0.0
    fat = b""
    leaving: "dict[str, object] | None" = None
    """What is to be answered when the page that is there is left."""
    looks = 0
    guests = 0


def flag(name: str, default: str) -> str:
    for argument in sys.argv[1:]:
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return default


def send(message: dict) -> None:  # type: ignore[type-arg]  # runs on any Python 3
    os.write(4, json.dumps(message).encode() + b"\0")


def main() -> None:
    if "--version" in sys.argv:
        print("Chromium 156.0.0.0")  # noqa: T201 (what a browser prints)
        return
    Posing.now = Posing.usual = flag("posing", "ok")
    look_for_another_pose()
    pose = Posing.now
    if pose == "dies-at-once":
        sys.stderr.write("posing: cannot open the display of my dreams\n")
        sys.exit(3)
    if pose in {"no-threads", "no-renderer"}:
        sys.stderr.write(
            "[1:1:ERROR:base/threading/platform_thread_posix.cc:149] pthread_create: Resource temporarily unavailable (11)\n"
        )
        sys.stderr.flush()
    if pose == "no-threads":
        sys.exit(1)
    if pose == "ignores-close":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if pose in {"leaves-a-stray", "leaves-a-dead"} and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            time.sleep(3600 if pose == "leaves-a-stray" else 0)
        os._exit(0)
    if pose == "never-ready":
        signal.pause()
    buffer = b""
    first = True
    while chunk := os.read(3, 65536):
        buffer += chunk
        while b"\0" in buffer:
            raw, buffer = buffer.split(b"\0", 1)
            if first and pose == "slow":
                time.sleep(0.5)
            first = False
            look_for_another_pose()
            try:
                command = json.loads(raw)
            except ValueError:
                send({"error": {"code": -32700, "message": "JSON: message is not valid"}})
                continue
            answer(command, Posing.now)


def look_for_another_pose() -> None:
    for name in ("posing", "posing-always"):
        path = flag("user-data-dir", "/nowhere") + "/" + name
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 (pathlib would be a quarter of its start)
                pose = file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if name == "posing":
            os.unlink(path)  # noqa: PTH108 (likewise)
        if pose != Posing.now:
            take_up(pose)


def take_up(pose: str) -> None:
    Posing.now = pose
    if pose == "stops":
        Posing.now = Posing.usual
        os.kill(os.getpid(), signal.SIGSTOP)
    if pose == "grows":
        Posing.fat = b"x" * (64 << 20)
    if pose == "gone":
        send({"method": "Inspector.targetCrashed", "params": {}, "sessionId": "S"})
    if pose in {"loops", "loops-on"}:
        start_new_thread(loop, ())
    if pose in HELPERS:
        signal.signal(signal.SIGCHLD, helper_ended)
        Posing.helper = start_helper(HELPERS[pose])


def loop() -> None:
    while Posing.now in {"loops", "loops-on"}:
        pass


def start_helper(words: "tuple[str, ...]") -> int:
    """It ends when this process does."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(ours, 0)
        os.closerange(3, 64)
        os.execv("/usr/bin/sh", ["sh", "-c", "read x", "sh", *words])
    os.close(ours)
    os.set_inheritable(theirs, False)
    return pid


def helper_ended(*_: object) -> None:
    pid, _status = os.waitpid(-1, os.WNOHANG)
    if pid != Posing.helper:
        return
    if Posing.now == "never-drawn":
        Posing.helper = start_helper(HELPERS[Posing.now])
    elif "--type=renderer" in HELPERS[Posing.now]:
        Posing.now = "gone"
        send({"method": "Inspector.targetCrashed", "params": {}, "sessionId": "S"})
    else:
        Posing.now = Posing.usual


def answer(message: dict, pose: str) -> None:  # type: ignore[type-arg]  # runs on any Python 3
    method = message["method"]
    result: dict[str, object] = {}
    reply = {"id": message["id"]}
    if "sessionId" in message:
        reply["sessionId"] = message["sessionId"]
    if method == "Target.setDiscoverTargets" and message["params"]["discover"]:
        info = {"targetId": "T", "type": "page", "url": "about:blank"}
        send({"method": "Target.targetCreated", "params": {"targetInfo": info}})
    elif method == "Target.attachToTarget":
        result = {"sessionId": "S"}
    elif method == "Target.attachToBrowserTarget":
        Posing.guests += 1
        result = {"sessionId": f"G{Posing.guests}"}
    elif method == "Target.getTargetInfo" and "targetId" in message["params"]:
        result = {"targetInfo": {"targetId": "T", "type": "page", "url": Posing.url, "browserContextId": "C"}}
    elif method == "Target.getTargetInfo":
        guest = message.get("sessionId", "").startswith("G")
        result = {
            "targetInfo": {"targetId": "B" + message["sessionId"], "type": "browser"}
            if guest
            else {"targetId": "T"}
        }
    elif method == "Browser.getVersion" and pose != "deaf":
        words = ("product", "protocolVersion", "userAgent", "jsVersion", "revision")
        result = dict.fromkeys(words, "posing")
    elif method == "Page.createIsolatedWorld":
        result = {"executionContextId": 2}
    elif method == "Page.getNavigationHistory":
        result = {"currentIndex": 0, "entries": [{"url": Posing.url}]}
    elif method == "Page.navigate" and pose == "leaves-late" and Posing.url == message["params"]["url"]:
        Posing.leaving, Posing.looks = {**reply, "result": {"frameId": "F"}}, 0
        return
    elif method == "Page.navigate":
        result = {"frameId": "F"}
        Posing.url = message["params"]["url"]
        Posing.opened = time.monotonic()
        if pose == "no-way":
            result["errorText"] = "net::ERR_CONNECTION_REFUSED"
        if pose == "dies-when-open":
            sys.exit(7)
        if pose == "talks-rubbish":
            os.write(4, b"this is no JSON\0")
        if pose == "crashes":
            send({"method": "Inspector.targetCrashed", "params": {}, "sessionId": "S"})
        if pose in LOADED_AGAIN:
            Posing.now = Posing.usual
    elif method == "Runtime.evaluate":
        if pose in {"silent", "crashes", "gone", "blocked", "loops", "loops-on"}:
            return
        if pose in {"not-drawn", "never-drawn"} and "awaitPromise" in message["params"]:
            return
        if pose == "late-answers":
            time.sleep(0.3)
        value = shown(message["params"]["expression"], pose)
        if Posing.leaving is not None:
            value = CONNECTED
            Posing.looks += 1
        if isinstance(value, dict):
            value = {"url": Posing.url, **value}
        result = {"result": {"type": "object", "value": value}}
    elif method == "Runtime.terminateExecution" and pose == "loops":
        Posing.now = Posing.usual
    elif (method, pose) in {
        ("Browser.getVersion", "deaf"),
        ("Network.getCookies", "no-network"),
        ("Page.captureScreenshot", "not-drawn"),
    }:
        return
    elif method == "Browser.close" and pose != "ignores-close":
        send({**reply, "result": {}})
        sys.exit(0)
    send({**reply, "result": result})
    if Posing.leaving is not None and Posing.looks == LEAVING_LOOKS:
        send(Posing.leaving)
        Posing.leaving = None


def shown(expression: str, pose: str) -> object:
    if 'probe.click("fresh_codes")' in expression:  # fresh codes are asked for
        Posing.scanned += 1
        return True
    if pose == "boots":
        booted = (time.monotonic() - Posing.opened) / BOOT_S
        return CONNECTED if booted >= 1 else {**SPLASH, "bar": 100 * booted}
    signs = SIGNS.get(pose) or SIGNS.get(Posing.usual) or (CONNECTED if Posing.usual == "connected" else QR)
    return {**signs, "qr": f"2@posing,{Posing.scanned}"} if signs is QR and Posing.scanned else signs


if __name__ == "__main__":
    main()
