"""Where ``watchout-ctl publish`` and ``ml replay`` take pictures from."""
