#!/usr/bin/python3
"""A small program that poses as Chromium: speaks enough of the DevTools protocol on fds 3 and 4, and misbehaves on request.

Give it as ``browser.path`` and a way to misbehave in ``browser.extra_flags``, for example ``--posing=never-ready``:

    ok              shows a QR code
    connected       is logged in
    slow            answers its first command after half a second
    never-ready     never answers
    dies-at-once    ends with exit code 3 and a word on stderr
    dies-when-open  ends when it is sent to a page
    ignores-close   answers Browser.close and stays, and ignores SIGTERM
    leaves-a-stray  starts a process in a session of its own, which stays when this one ends
    leaves-a-dead   likewise, but it ends at once
    silent          its page never answers a look
    late-answers    its page answers each look after a third of a second
    talks-rubbish   writes something that is no JSON
    never-loads     its page shows nothing but the splash screen
    crashes         its page's renderer is gone as soon as it is opened

Only the standard library, and any Python 3: it runs inside the sandbox.
"""

import json
import os
import signal
import sys
import time

SPLASH = {"url": "https://web.whatsapp.com/", "splash": True}
QR = {"url": "https://web.whatsapp.com/", "qr": "2@posing,noise,identity,adv,1", "state": "UNPAIRED"}
CONNECTED = {"url": "https://web.whatsapp.com/", "panes": True, "state": "CONNECTED", "synced": True}


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
    pose = flag("posing", "ok")
    if pose == "dies-at-once":
        sys.stderr.write("posing: cannot open the display of my dreams\n")
        sys.exit(3)
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
            answer(json.loads(raw), pose)


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
    elif method == "Page.navigate":
        result = {"frameId": "F"}
        if pose == "dies-when-open":
            sys.exit(7)
        if pose == "talks-rubbish":
            os.write(4, b"this is no JSON\0")
        if pose == "crashes":
            send({"method": "Inspector.targetCrashed", "params": {}, "sessionId": "S"})
    elif method == "Runtime.evaluate":
        if pose in {"silent", "crashes"}:
            return
        if pose == "late-answers":
            time.sleep(0.3)
        signs = {"connected": CONNECTED, "never-loads": SPLASH}.get(pose, QR)
        result = {"result": {"type": "object", "value": signs}}
    elif method == "Browser.close" and pose != "ignores-close":
        send({**reply, "result": {}})
        sys.exit(0)
    send({**reply, "result": result})


if __name__ == "__main__":
    main()
