"""``python -m watchout.mlbridge``: the same as ``watchout-mlbridge``."""

from watchout.mlbridge.app import main

if __name__ == "__main__":
    main()
