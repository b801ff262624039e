"""The interface of an ML service as the bridge uses it, and the errors that its clients raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from watchout.common.errors import WatchoutError
from watchout.common.media.frames import Frame
from watchout.mlbridge.refusals import Blame

#: Receives alerts, decoded but not checked, that belong to no frame the target waits for. An `UnusableMessage` in the
#: list stands for a message that held no alerts.
OnAlerts = Callable[[list[object]], None]


def discard_alerts(values: list[object]) -> None:
    """Drop alerts. Targets use it until `Target.open` names a receiver."""
    del values


class UnusableMessage(str):
    """A text that says what an ML service sent in place of alerts, and what was expected.

    Targets pass it to `OnAlerts` among the alerts. The dispatcher counts and logs it.
    """

    __slots__ = ()


class TargetFailure(WatchoutError):
    """The service did not receive a frame, or returned no result for it.

    Raised by `Target.analyse`. The dispatcher counts it, and the scheduler pauses as `blame` and `retry_after_s` say
    and goes on with a newer frame.

    Args:
        reason: what happened, for the log.
        retry_after_s: seconds after which the service wants the next request, if it said so; bounded by the target.
        blame: what caused the failure, as far as the failure by itself shows.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None, blame: Blame = Blame.SERVICE) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.blame = blame


class TargetTimeout(TargetFailure):
    """The service did not return a result before the target's own deadline. Raised by `Target.analyse`.

    Args:
        reason: what was waited for, and for how long.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason, blame=Blame.UNSURE)


class UnusableResult(TargetFailure):
    """The service returned something that is no result, such as an error page: the frame does not count as analysed.

    Raised by `Target.analyse` and by the functions of `watchout.mlbridge.targets.results`.

    Args:
        reason: what was received (its beginning), and what was expected.
        blame: as in `TargetFailure`.
        key: stream and frame id that the message names, if it names them.
        counted: whether `OnAlerts` already received it as an `UnusableMessage`, so that it must not be counted again.
    """

    def __init__(
        self,
        reason: str,
        *,
        blame: Blame = Blame.UNSURE,
        key: tuple[str, int] | None = None,
        counted: bool = False,
    ) -> None:
        super().__init__(reason, blame=blame)
        self.key = key
        self.counted = counted


class Target(Protocol):
    """The client of one ML service. Built by `watchout.mlbridge.targets.open_target`, used by the dispatcher.

    `analyse` sends one frame and raises `TargetFailure` when the frame is not delivered or not analysed; the dispatcher
    counts that. The scheduler decides when a frame is sent; `watchout.common.alerts.model` checks alerts.
    """

    @property
    def public_url(self) -> str:
        """The URL of the service without credentials and options, for logs."""

    async def open(self, on_alerts: OnAlerts) -> None:
        """Prepare the client. Neither fails nor waits when the service is away: it may come later.

        Args:
            on_alerts: receives alerts that belong to no frame of a running `analyse`: the service sent them
                unasked, or after `analyse` had returned or was cancelled.
        """

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Send one frame and wait until the service is done with it.

        Kinds of services that return a result for each frame are waited for. Kinds that return none are done when the
        transport has taken the frame, so that the number of frames under way stays bounded. The caller cancels the call
        at its deadline.

        Args:
            frame: the frame; it holds a picture.
            isolated: an earlier frame of this stream failed, perhaps because it made the service end the connection or
                refuse the request. The target sends the frame so that no other frame fails with it.

        Returns:
            The alerts in the result, decoded but not checked; empty when there are none or they come later.

        Raises:
            TargetFailure: the frame was not delivered or not analysed.
            watchout.common.alerts.model.AlertFault: the result has alerts that are no list, or too many.
        """

    async def close(self) -> None:
        """Close all connections. A running `analyse` fails or is cancelled."""
