"""Sources of ``watchout-ctl publish`` and ``ml replay``: files, cameras, and a drawn scene."""
