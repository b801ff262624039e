"""An ML service for watchout from one function: `serve`. docs/ml-team.md says what the function gets and returns."""

from watchout.common.media.arrays import MissingExtra, PictureFault
from watchout.ml.results import Alert, ResultFault
from watchout.ml.service import Service, serve
from watchout.ml.shown_frame import Frame

__all__ = ["Alert", "Frame", "MissingExtra", "PictureFault", "ResultFault", "Service", "serve"]
