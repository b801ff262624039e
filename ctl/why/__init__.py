"""``watchout-ctl why``: asks every process, and says in sentences what they know."""
