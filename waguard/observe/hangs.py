"""Disks that hang: each call that does not end is logged once, and an alert stands for its client until all of its have ended."""

from collections.abc import Callable
from typing import Any

from waguard.core.model import Alert, ClientCode
from waguard.observe.alerts import Alerts
from waguard.system.threads import Hang


class Hangs:
    def __init__(self, publish: Callable[..., Any], alerts: Alerts) -> None:
        self._publish, self._alerts = publish, alerts

    def heard(self, hang: Hang) -> None:
        """A call does not end, or has ended at last."""
        client = ClientCode(hang.client) if hang.client else None
        said = {"stage": hang.stage or None, "doing": hang.doing, "waited_s": hang.waited_s}
        if hang.over:
            self._publish("storage.answers", client=client, **said)
            self._alerts.set(Alert.STORAGE_HANGS, "", client)
            return
        self._publish("storage.hangs", client=client, **said)
        where = f"stage {hang.stage}: {hang.doing}" if hang.stage else hang.doing
        whose = f"The disk of {client}" if client else "The disk of the sessions"
        self._alerts.set(Alert.STORAGE_HANGS, f"{whose} does not answer ({where}).", client)
