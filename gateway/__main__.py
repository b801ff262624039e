"""``python -m watchout.gateway``: the same as ``watchout-gateway``."""

from watchout.gateway.app import main

if __name__ == "__main__":
    main()
