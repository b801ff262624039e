"""Reads the rows of look-ups: users with their roles and organizations. Pure."""

from __future__ import annotations

import json
from typing import Any

from watchout.identity.caller import Identity, Organizations


def read_identity(row: Any) -> tuple[str, Identity]:
    """Return the key that was looked up and the user, from one row of a look-up."""
    key, user_id, session_id, expires_at, roles, organizations = row
    return key, Identity(
        user_id=user_id,
        session_id=session_id,
        expires_at=expires_at,
        roles=read_roles(roles),
        organizations=read_organizations(organizations),
    )


def read_roles(text: str | None) -> frozenset[str]:
    """Return the roles in a text as Better Auth stores them, separated by commas."""
    return frozenset(role for part in (text or "").split(",") if (role := part.strip()))


def read_organizations(text: str | None) -> Organizations:
    """Return the organizations in JSON of the form ``[[organization id, roles], …]``."""
    found: dict[str, frozenset[str]] = {}
    for organization, roles in json.loads(text) if text else ():
        if organization is not None:
            found[organization] = found.get(organization, frozenset()) | read_roles(roles)
    return found
