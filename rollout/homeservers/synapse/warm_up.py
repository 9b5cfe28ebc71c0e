"""What is asked of a worker to fill its caches before its users come."""

from rollout.model.ids import Role

# They serve users, and a sibling has them meanwhile.
WARMABLE: frozenset[Role] = frozenset({Role("sync"), Role("client")})
