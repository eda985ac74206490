"""``python -m mining``."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # python -m puts the working directory first: a user's random.py would be taken for Python's.
    sys.path.pop(0)

from mining.app.command_line import main

if __name__ == "__main__":
    main()
