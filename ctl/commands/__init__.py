"""The commands of ``watchout-ctl``: one file a command."""
