"""``python -m mining``."""

from mining.app.command_line import main

if __name__ == "__main__":
    main()
