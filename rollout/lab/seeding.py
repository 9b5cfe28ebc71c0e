"""Users and rooms of a lab, made through the client API as anybody would."""

import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import requests

from rollout.lab.paths import SERVER_NAME, Lab
from rollout.lab.templates import CANARY_USER, secret
from rollout.model.errors import TransientDriverError

CALL_TIMEOUT_S = 60.0
THREADS = 4


@dataclass(frozen=True, slots=True)
class User:
    """One seeded user; *rooms* are those they have joined."""

    user_id: str
    access_token: str
    device_id: str
    rooms: tuple[str, ...]


def seed(lab: Lab, users: int, rooms: int, say: Any = print) -> None:  # noqa: ANN401  (a function that prints)
    """Register *users*, make *rooms* and let everybody join four of them. Does nothing when it has been done."""
    if lab.users.exists():
        return
    say(f"making {users} users and {rooms} rooms")
    with requests.Session() as session, ThreadPoolExecutor(THREADS) as pool:
        session.trust_env = False
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS * 2))
        client = _Client(session, lab)
        client.register(CANARY_USER)
        made = list(pool.map(client.register, (f"user{number}" for number in range(users))))
        owners = [made[number % users] for number in range(rooms)]
        ids = list(pool.map(client.create_room, owners, range(rooms)))
        joins = [(number, (number + step * 3 + number // rooms) % rooms) for number in range(users) for step in range(4)]
        wanted = sorted({(number, room) for number, room in joins} | {(number % users, number) for number in range(rooms)})
        list(pool.map(lambda pair: client.join(made[pair[0]], ids[pair[1]]), wanted))
        list(pool.map(lambda pair: client.send(made[pair[0]], ids[pair[1]]), wanted))
    joined = {number: tuple(ids[room] for who, room in wanted if who == number) for number in range(users)}
    found = [User(one["user_id"], one["access_token"], one["device_id"], joined[number]) for number, one in enumerate(made)]
    lab.users.touch(mode=0o600)
    lab.users.write_text(json.dumps({"users": [asdict(user) for user in found], "rooms": ids}, indent=1))


def load_users(lab: Lab) -> tuple[list[User], list[str]]:
    """Read the seeded users, and the rooms."""
    content = json.loads(lab.users.read_text())
    return [User(one["user_id"], one["access_token"], one["device_id"], tuple(one["rooms"])) for one in content["users"]], content["rooms"]


class _Client:
    def __init__(self, session: requests.Session, lab: Lab) -> None:
        self._session = session
        self._lab = lab

    def register(self, name: str) -> dict[str, str]:
        url = "/_synapse/admin/v1/register"
        nonce = self._call("GET", url, None, None)["nonce"]
        message = f"{nonce}\0{name}\0{name}\0notadmin".encode()
        mac = hmac.new(secret(self._lab, "registration_shared_secret").encode(), message, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": name, "password": name, "admin": False, "mac": mac}
        return self._call("POST", url, None, body)

    def create_room(self, owner: dict[str, str], number: int) -> str:
        body = {
            "preset": "public_chat",
            "name": f"Room {number}",
            "room_alias_name": f"room{number}",
            "creation_content": {"m.federate": True},
        }
        return str(self._call("POST", "/_matrix/client/v3/createRoom", owner, body)["room_id"])

    def join(self, user: dict[str, str], room: str) -> None:
        self._call("POST", f"/_matrix/client/v3/rooms/{room}/join", user, {})

    def send(self, user: dict[str, str], room: str) -> None:
        path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/seed-{user['user_id'].partition(':')[0][1:]}"
        self._call("PUT", path, user, {"msgtype": "m.text", "body": f"hello, {SERVER_NAME}"})

    def _call(self, method: str, path: str, user: dict[str, str] | None, body: object) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {user['access_token']}"} if user else {}
        answer = self._session.request(method, f"{self._lab.base_url}{path}", json=body, headers=headers, timeout=CALL_TIMEOUT_S)
        if not answer.ok:
            raise TransientDriverError(f"{method} {path.partition('?')[0]} was answered {answer.status_code}", why=answer.text[:500])
        result: dict[str, str] = answer.json()
        return result
