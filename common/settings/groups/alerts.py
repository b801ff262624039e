"""Cooldown and pictures of alerts, and their delivery to a webhook. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("Alerts")


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """Alerts: one field a setting. `Settings` inherits them."""

    alert_cooldown_s: float = _GROUP.setting(
        "ALERT_COOLDOWN_S", parsers.number(0, 86_400), 5.0, expects="0–86400 s",
        help="After an alert of the ML service, further ones of the same stream and kind are only counted for so "
        "long, unless their severity is higher; the next one says how many (`metadata.suppressed`). 0: all are told.",
    )  # fmt: skip
    alert_picture_bytes: int = _GROUP.setting(
        "ALERT_PICTURE_BYTES", parsers.whole(0, 16 << 30), 64 << 20, expects="bytes",
        help="Pictures of alerts' frames that the router keeps for `GET /alerts/{id}/frame.jpg`, no longer than the "
        "alerts themselves. 0: none.",
    )  # fmt: skip
    alert_webhook_url: str | None = _GROUP.setting(
        "ALERT_WEBHOOK_URL", url_parsers.webhook_url, None, expects="URL", secret=True,
        help="Every alert is sent there with `POST`, signed (Standard Webhooks). `https` only, unless "
        "`ALERT_WEBHOOK_ALLOW_PRIVATE`.",
    )  # fmt: skip
    alert_webhook_secrets: tuple[bytes, ...] = _GROUP.setting(
        "ALERT_WEBHOOK_SECRETS", key_parsers.webhook_secrets, (), expects="whsec_…,…", secret=True,
        help="Secrets that it is signed with; while they are rotated there are two, and two signatures.",
    )  # fmt: skip
    alert_webhook_allow_private: bool = _GROUP.setting(
        "ALERT_WEBHOOK_ALLOW_PRIVATE", parsers.flag, False, expects="true, false",
        help="Also send to private, link-local and loopback addresses, and over plain `http`.",
    )  # fmt: skip
    alert_webhook_timeout_s: float = _GROUP.setting(
        "ALERT_WEBHOOK_TIMEOUT_S", parsers.number(0.1, 60), 15.0, expects="0.1–60 s",
        help="Deadline of one try.",
    )  # fmt: skip
    alert_webhook_give_up_s: float = _GROUP.setting(
        "ALERT_WEBHOOK_GIVE_UP_S", parsers.number(1, 86_400), 3600.0, expects="1–86400 s",
        help="How long an alert is tried again, after 1 s, 2 s, 4 s … up to a minute apart, before it is given up.",
    )  # fmt: skip
