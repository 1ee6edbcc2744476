"""Who may ask the control port for what."""
