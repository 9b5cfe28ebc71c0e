"""
Logs, for machines and for whoever looks for a fault: on stderr, as JSON when that is not a terminal.

What libraries say through the standard library's logging takes the same way. No traceback shows local variables: they may hold secrets.
"""

import logging
import sys
from typing import cast

import structlog

from rollout.deciding.state import DeployState
from rollout.model.codec import event_kind, to_plain
from rollout.model.event import Event, Observed, SamplesTaken


def configure(level: str) -> None:
    """Set up; a second time replaces the first."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    finish: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if sys.stderr.isatty():
        finish.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        finish += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=finish, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def log() -> structlog.typing.FilteringBoundLogger:
    """Return the logger of the command line."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger("rollout"))


def log_event(event: Event, _state: DeployState) -> None:
    """Listen to a rollout. What is seen every second is for debugging only."""
    say = log().debug if isinstance(event, Observed | SamplesTaken) else log().info
    # Its own name, because `event` is what structlog calls the message.
    say(event_kind(event), **to_plain(event))
