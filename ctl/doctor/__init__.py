"""``watchout-ctl doctor``: checks that compare the settings with what is there, and report findings with a remedy."""
