"""Settings of alerts: cooldown, stored pictures, and delivery to a webhook. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.alerts.model import SEVERITIES, Severity
from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("Alerts")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class AlertSettings:
    """The settings of the section "Alerts": which alerts are passed on, and to where. See `Settings`."""

    alert_cooldown_s: float = _GROUP.setting(
        "ALERT_COOLDOWN_S", parsers.number(0, 86_400), 5.0, expects="0–86400 s",
        help="Seconds after an alert of the ML service in which further alerts of the same stream and kind are only "
        "counted, unless their severity is higher; the next alert carries the count (`metadata.suppressed`). 0: every "
        "alert is passed on.",
    )  # fmt: skip
    alert_picture_bytes: int = _GROUP.setting(
        "ALERT_PICTURE_BYTES", parsers.whole(0, 16 << 30), 64 << 20, expects="bytes",
        help="Memory of the router for the frames of recent alerts, which `GET /alerts/{id}/frame.jpg` returns; they "
        "are kept no longer than the alerts. Raise it if pictures of recent alerts are missing. 0: none are kept.",
    )  # fmt: skip
    alert_webhook_url: str | None = _GROUP.setting(
        "ALERT_WEBHOOK_URL", url_parsers.webhook_url, None, expects="URL", secret=True,
        help="URL to which every alert is sent with `POST`, signed as Standard Webhooks; requires "
        "`ALERT_WEBHOOK_SECRETS`. Only `https`, unless `ALERT_WEBHOOK_ALLOW_PRIVATE` is set.",
    )  # fmt: skip
    alert_webhook_secrets: tuple[bytes, ...] = _GROUP.setting(
        "ALERT_WEBHOOK_SECRETS", key_parsers.webhook_secrets, (), expects="whsec_…,…", secret=True,
        help="Secrets with which webhook requests are signed, each with its own signature. Set two while you rotate "
        "them.",
    )  # fmt: skip
    alert_webhook_allow_private: bool = _GROUP.setting(
        "ALERT_WEBHOOK_ALLOW_PRIVATE", parsers.flag, False, expects="true, false",
        help="Also send to private, link-local and loopback addresses, and over plain `http`. Set it for a receiver in "
        "your own network.",
    )  # fmt: skip
    alert_webhook_timeout_s: float = _GROUP.setting(
        "ALERT_WEBHOOK_TIMEOUT_S", parsers.number(0.1, 60), 15.0, expects="0.1–60 s",
        help="Deadline of one webhook request, in seconds.",
    )  # fmt: skip
    alert_webhook_give_up_s: float = _GROUP.setting(
        "ALERT_WEBHOOK_GIVE_UP_S", parsers.number(1, 86_400), 3600.0, expects="1–86400 s",
        help="Seconds after which an alert that could not be delivered is given up. Until then it is sent again after "
        "1 s, 2 s, 4 s …, at most a minute apart.",
    )  # fmt: skip
    alert_escalate_s: float = _GROUP.setting(
        "ALERT_ESCALATE_S", parsers.number(0, 604_800), 0.0, expects="0–604800 s",
        help="Seconds within which somebody has to acknowledge an alert of `ALERT_ESCALATE_SEVERITY` or above; one "
        "that nobody acknowledged is sent to the webhook once more, as `alert.unacknowledged`. Without "
        "`ALERT_WEBHOOK_URL` it does nothing. 0: off.",
    )  # fmt: skip
    alert_escalate_severity: Severity = _GROUP.setting(
        "ALERT_ESCALATE_SEVERITY", parsers.one_of(*SEVERITIES), "high", expects=", ".join(SEVERITIES),
        help="The least severity of alerts to which `ALERT_ESCALATE_S` applies.",
    )  # fmt: skip
