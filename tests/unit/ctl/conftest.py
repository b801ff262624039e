"""The fixtures of `tests.kit.ctl_command`, for the tests of the operator's tool."""

from tests.kit.ctl_command import ctl, folder, gateway, home, start, unused_port

__all__ = ["ctl", "folder", "gateway", "home", "start", "unused_port"]
