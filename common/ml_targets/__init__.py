"""What watchout knows about each kind of ML service without loading its client: one declaration a kind."""

from __future__ import annotations

import watchout.common.ml_targets.kinds  # noqa: F401 - declares the built-in kinds
