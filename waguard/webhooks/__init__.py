"""Events, posted to receivers: signed, in order per client, and again until they arrive."""
