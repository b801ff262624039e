"""Reads the rows of a look-up: callers, their roles and their organizations. Pure."""

from __future__ import annotations

import json
from typing import Any

from watchout.identity.caller import Identity, Organizations


def read_identity(row: Any) -> tuple[str, Identity]:
    """The key that was asked for, and the caller, from a row of a look-up."""
    key, user_id, session_id, expires_at, roles, organizations = row
    return key, Identity(
        user_id=user_id,
        session_id=session_id,
        expires_at=expires_at,
        roles=read_roles(roles),
        organizations=read_organizations(organizations),
    )


def read_roles(text: str | None) -> frozenset[str]:
    """Roles as Better Auth keeps them: in one text, separated by commas."""
    return frozenset(role for part in (text or "").split(",") if (role := part.strip()))


def read_organizations(text: str | None) -> Organizations:
    """Organizations from JSON of ``[[organization id, roles], …]``."""
    found: dict[str, frozenset[str]] = {}
    for organization, roles in json.loads(text) if text else ():
        if organization is not None:
            found[organization] = found.get(organization, frozenset()) | read_roles(roles)
    return found
