"""waguard: the supervisor daemon for WhatsApp Web browsers."""

__version__ = "0.1.0"
