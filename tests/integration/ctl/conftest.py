"""The fixtures of `tests.kit.ctl_command` and of `ml_kit`, for the tests of the operator's tool."""

from tests.integration.ctl.ml_kit import film, picture, run
from tests.kit.ctl_command import ctl, folder, gateway, home, start, unused_port

__all__ = ["ctl", "film", "folder", "gateway", "home", "picture", "run", "start", "unused_port"]
