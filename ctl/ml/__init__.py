"""Dry runs against an ML service: ``watchout-ctl ml``."""
