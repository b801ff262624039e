"""The rights that a token itself grants, for streams by pattern, in place of those of its user. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from watchout.common.toolbox import wildcards

#: The claim of a JWT, and the member of an introspection response.
CLAIM: Final = "watchout"
RIGHTS: Final = ("publish", "view", "alerts")
Right = Literal["publish", "view", "alerts"]


class GrantsFault(ValueError):
    """A claim that grants nothing that can be understood; raised by `read_grants`. The token is refused.

    The text says what came and what is expected, without any part of the token but names.
    """


@dataclass(frozen=True, slots=True)
class Grants:
    """What a caller may do, whoever owns the stream: patterns of stream ids for each right. Part of `Identity`.

    Attributes:
        publish: Streams that may be registered.
        view: Streams whose frames may be seen. It does not include the alerts.
        alerts: Streams whose alerts may be received.
        owner: Only while the stream belongs to this user; None: whoever owns it.
        may_acknowledge: Whether alerts that may be received may be acknowledged as well.
    """

    publish: tuple[str, ...] = ()
    view: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    owner: str | None = None
    may_acknowledge: bool = True

    def allows(self, right: Right, stream: str) -> bool:
        """Return whether a right is granted for a stream id."""
        return wildcards.any_matches(getattr(self, right), stream)


def read_grants(claims: dict[str, Any]) -> Grants | None:
    """Return what the claim `CLAIM` grants; None only when there is no such claim.

    Raises:
        GrantsFault: The claim is malformed. It is never taken for a claim that is missing, which would give its user's
            rights.
    """
    if CLAIM not in claims:
        return None
    value = claims[CLAIM]
    if not isinstance(value, dict):
        raise GrantsFault(f"its claim {CLAIM} is no object, expected lists named {', '.join(RIGHTS)}")
    if unknown := value.keys() - set(RIGHTS):
        raise GrantsFault(f"its claim {CLAIM} has {min(unknown)[:40]!a}, expected {', '.join(RIGHTS)} only")
    for right, patterns in value.items():
        if not isinstance(patterns, list):
            raise GrantsFault(f"{right} in its claim {CLAIM} is no list of patterns")
        if (fault := wildcards.fault(patterns)) is not None:
            raise GrantsFault(f"{right} in its claim {CLAIM} is unusable, expected {fault}")
    publish, view, alerts = (tuple(value.get(right, ())) for right in RIGHTS)
    return Grants(publish, view, alerts)
