"""A logger that says nothing and leaves structlog's global configuration alone."""

from typing import cast

import structlog

from gateway_core.logs import Logger

QUIET: Logger = cast(
    "Logger", structlog.wrap_logger(structlog.ReturnLogger(), processors=[structlog.processors.KeyValueRenderer()])
)
