"""``python -m watchout.ctl``: the same as ``watchout-ctl``."""

from watchout.ctl.app import main

if __name__ == "__main__":
    main()
