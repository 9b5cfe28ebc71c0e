"""
What a homeserver consists of: the inventory file, as written by a person.

Each driver checks its own settings, because third parties bring drivers; here they are only carried.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rollout.model.ids import PoolId, Role, WorkerId

_STRICT = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class DriverSettings(BaseModel):
    """Which driver serves a port, and its own settings, which only the driver knows how to check."""

    model_config = ConfigDict(frozen=True, extra="allow")

    driver: str

    def settings(self) -> Mapping[str, object]:
        """Everything but the driver's name."""
        return dict(self.model_extra or {})


class WorkerEntry(BaseModel):
    """One process: *url* is its own listener, *metrics* its metrics page; *pool* is absent when the proxy doesn't see it."""

    model_config = _STRICT

    role: Role
    pool: PoolId | None = None
    host: str = "local"
    url: str
    metrics: str
    server: str | None = Field(default=None, description="its name at the proxy; the worker's id if absent")
    depends_on: tuple[WorkerId, ...] = ()


class PoolEntry(BaseModel):
    """Interchangeable workers behind one proxy backend. *hold*: its requests pass through the proxy's hold (hold.lua)."""

    model_config = _STRICT

    backend: str
    hold: bool = Field(default=False, description="requests of this backend can be held at the proxy while its only worker restarts")
    routing: Literal["even", "hash"] | None = Field(
        default=None,
        description="how requests find their worker; as the proxy says if absent, and the worse of the two if both say something",
    )


class Inventory(BaseModel):
    """The homeserver, its workers and what is used to reach them."""

    model_config = _STRICT

    homeserver: str = Field(min_length=1, description="the server_name")
    kind: Literal["synapse"] = "synapse"
    workers: dict[WorkerId, WorkerEntry] = Field(min_length=1)
    pools: dict[PoolId, PoolEntry] = {}
    workers_driver: DriverSettings
    releases_driver: DriverSettings
    traffic_driver: DriverSettings
    metrics_driver: DriverSettings = DriverSettings(driver="scrape")
    history_driver: DriverSettings | None = Field(default=None, description="who has kept metrics of the past, for baselines")
    probe_driver: DriverSettings = DriverSettings(driver="http")
    database_driver: DriverSettings | None = None
    ledger_driver: DriverSettings
    lease_driver: DriverSettings | None = Field(default=None, description="who may roll it now; a file beside the ledger if absent")
    warming_driver: DriverSettings | None = None
    notifier_driver: DriverSettings | None = None
