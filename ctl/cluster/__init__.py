"""``watchout-ctl cluster``: what is found, the picture of the site that it makes, and its tables."""
