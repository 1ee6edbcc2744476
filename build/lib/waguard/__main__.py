"""``python -m waguard`` is the command ``waguard``."""

from waguard.cli.main import main

if __name__ == "__main__":
    main()
