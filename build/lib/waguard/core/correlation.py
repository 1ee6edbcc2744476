"""Whether it is the network, and no single session. Pure."""

from collections.abc import Mapping


def network_is_down(online: Mapping[str, bool]) -> bool:
    """``online``: of each session that is up, whether it reaches WhatsApp. True if most do not.

    With a single session it is the network too: another browser would not reach further.
    """
    return bool(online) and sum(not one for one in online.values()) * 2 > len(online)
