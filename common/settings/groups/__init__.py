"""The settings by group: each file declares the settings of one section of docs/settings.md."""
