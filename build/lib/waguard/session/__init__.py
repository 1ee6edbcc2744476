"""One client: its profile, its browser, its page, and the task that owns them."""
