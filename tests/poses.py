"""Daemons in this process whose browsers pose: how a pose is taken up, and what is seen of it."""

from typing import Any

from conftest import Journal

from waguard.core.model import ClientCode, Link
from waguard.supervisor.supervisor import Supervisor

DEMO = ClientCode("demo")
OTHERS = [ClientCode(f"other{number}") for number in range(20)]
QUICK = {
    "page": {"poll_s": 0.05, "poll_loading_s": 0.05, "read_s": 0.3},
    "probes": {"process_s": 0.1, "browser_s": 0.2, "network_s": 0.2, "gpu_s": 0.2, "answer_s": 0.3},
    "health": {
        "stopped_s": 0.1,
        "hung_s": 0.4,
        "blocked_s": 0.5,
        "busy_s": 0.5,
        "offline_s": 0.2,
        "verify_s": 3.0,
    },
}


def take_up(supervisor: Supervisor, code: ClientCode, pose: str, *, always: bool = False) -> None:
    """See tests/posing_chromium.py."""
    profile = supervisor._sessions[code].memory.profile
    assert profile is not None
    (profile.path / ("posing-always" if always else "posing")).write_text(pose)


def connected(supervisor: Supervisor, *codes: ClientCode) -> bool:
    return all(supervisor.view(code).link is Link.CONNECTED for code in codes)


def alerts(journal: Journal, alert: str) -> list[str]:
    """``raised`` and ``cleared``, in order."""
    ends = {"alert.raised", "alert.cleared"}
    told = [one for one in journal.events if one.name in ends and one.fields["alert"] == alert]
    return [one.name.removeprefix("alert.") for one in told]


def shows(supervisor: Supervisor, signs: dict[str, Any]) -> None:
    """From now on the page says this."""

    async def evaluate(_expression: str) -> dict[str, Any]:
        return signs

    browser = supervisor._sessions[DEMO]._instance.browser
    assert browser is not None
    assert browser.page is not None
    browser.page.look = browser.page.evaluate = evaluate  # type: ignore[assignment, method-assign]
