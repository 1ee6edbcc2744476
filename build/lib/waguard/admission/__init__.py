"""May it start now? Room, breaker, turns."""
