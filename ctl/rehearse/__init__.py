"""``watchout-ctl rehearse``: cameras and viewers as load, what they and the system saw of it, and a verdict."""
