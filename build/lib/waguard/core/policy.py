"""How often and how soon a browser that ended by itself is started again. Pure arithmetic on monotonic seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The numbers of ``[restart]`` and ``[health]`` that the table needs."""

    budget: int = 5
    window_s: float = 600.0
    base_s: float = 1.0
    max_s: float = 60.0
    cooldown_s: float = 900.0
    relapse_s: float = 120.0
    """A fault that comes back sooner was not cured: the next remedy is tried."""

    def recent(self, restarts: tuple[float, ...], now: float) -> tuple[float, ...]:
        """Those of the restarts that still count against the budget."""
        return tuple(at for at in restarts if now - at < self.window_s)

    def rest_s(self, recent: tuple[float, ...], now: float) -> float:
        """How long a session with no budget left rests: until the cool-down is over and one more restart is inside it."""
        oldest = recent[-self.budget] if 0 < self.budget <= len(recent) else now - self.window_s
        return max(self.cooldown_s, oldest + self.window_s - now)

    def delay_bound_s(self, recent: int) -> float:
        """Upper bound of the delay before the next restart: none for the first, then doubling up to ``max_s``.

        The delay itself is drawn between 0 and this bound (full jitter), so that a host full of browsers
        that fell together does not start them together.
        """
        if recent == 0:
            return 0.0
        return float(min(self.max_s, self.base_s * 2 ** min(recent - 1, 32)))
