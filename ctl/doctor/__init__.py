"""The checks of ``watchout-ctl doctor``."""
