"""Builds the target for a URL: from the declaration of its kind, with the module that implements it.

A kind is declared in `watchout.common.ml_targets.kinds` under the name of the module here that implements it. Only that
module is imported, since its client library may not be installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from watchout.common.errors import StartError
from watchout.common.ml_targets.declaration import TargetDeclaration, declare, of_scheme, schemes, withdraw
from watchout.common.settings import Settings
from watchout.mlbridge.targets.target import Target

#: Builds a target from a checked URL and the settings. Raises `StartError` when the settings do not fit.
Opener = Callable[[str, Settings], Target]

_openers: Final[dict[str, Opener]] = {}


def register(declaration: TargetDeclaration, opener: Opener) -> None:
    """Add a kind of ML service that has no module in this package.

    Args:
        declaration: what is known about the kind; its schemes must be free.
        opener: builds its targets.

    Raises:
        ValueError: one of its schemes belongs to another kind.
    """
    declare(declaration)
    _openers[declaration.name] = opener


def unregister(declaration: TargetDeclaration) -> None:
    """Remove a kind that was added with `register`."""
    withdraw(declaration)
    del _openers[declaration.name]


def opener_of(declaration: TargetDeclaration) -> Opener:
    """Return the function that builds targets of a kind.

    Raises:
        ModuleNotFoundError: the client library of the kind is not installed.
    """
    opener = _openers.get(declaration.name)
    if opener is None:
        opener = _openers[declaration.name] = importlib.import_module(f"{__package__}.{declaration.name}").open_target
    return opener


def open_target(settings: Settings, url: str | None = None) -> Target | None:
    """Build the client of an ML service; it is not connected yet.

    Args:
        settings: the settings of mlbridge.
        url: a checked URL; None: that of ``ML_SERVICE_URL``.

    Returns:
        The target, or None when `url` is None and ``ML_SERVICE_URL`` is not set.

    Raises:
        StartError: the scheme is unknown, the client library is not installed, or a certificate cannot be read. The
            process does not start.
    """
    url = settings.ml_service_url if url is None else url
    if url is None:
        return None
    scheme = url.partition(":")[0]
    declaration = of_scheme(scheme)
    if declaration is None:
        raise StartError(f"ML_SERVICE_URL begins with {scheme}://, expected one of {', '.join(schemes())}")
    try:
        return opener_of(declaration)(url, settings)
    except ModuleNotFoundError as missing:
        if declaration.extra is None:
            raise
        raise StartError(
            f"ML_SERVICE_URL begins with {scheme}://, which needs the package {missing.name}: "
            f"pip install 'watchout[{declaration.extra}]'"
        ) from None
