"""
What the engine asks of the world. Each port is a Protocol; each has drivers in `adapters/` and a simulated one in `simulation/`, and one
suite of contract tests (tests/contracts/) that all of them pass.

Every driver raises only TransientDriverError, PermanentDriverError (StaleEffectError among them) and OutcomeUnknownError, and every call
ends within the time it was given.
"""
