"""Is it stuck, and what helps without an end of the browser."""
