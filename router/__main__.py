"""``python -m watchout.router``: the same as ``watchout-router``."""

from watchout.router.app import main

if __name__ == "__main__":
    main()
