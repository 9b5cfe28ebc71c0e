"""
A webhook for pages, and an address that is asked again and again while a rollout lives (a dead man's switch: its silence is the alarm).

The body has a plain `text`, which chat services show (Slack, Mattermost, matrix-hookshot), and the page's other parts for everybody else.
Addresses of webhooks are secrets, so they are references, and no error repeats them.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import requests
from pydantic import AfterValidator
from urllib3.exceptions import HTTPError

from rollout.adapters.in_time import POOLS
from rollout.adapters.settings import SecretReference, Settings, check, refused, resolve_secret
from rollout.model.errors import TransientDriverError
from rollout.model.inventory import Inventory
from rollout.ports.notifier import Page

ANSWER_BYTES_MAX = 65_536


def _holds_an_address(reference: str) -> str:
    if not resolve_secret(reference).startswith(("http://", "https://")):
        raise refused(f"what {reference} holds is no address", "https://…")
    return reference


_AddressReference = Annotated[SecretReference, AfterValidator(_holds_an_address)]


class WebhookSettings(Settings):
    """*url*: a reference to the webhook's address; *heartbeat*: one to the address that expects to be asked every half minute."""

    url: _AddressReference
    heartbeat: _AddressReference | None = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "Webhook":
    """Open the driver; nothing is sent yet. Raises InvalidFileError when a secret isn't there or is no address."""
    del inventory
    checked = check(WebhookSettings, settings, "notifier_driver")
    heartbeat = None if checked.heartbeat is None else resolve_secret(checked.heartbeat)
    return Webhook(resolve_secret(checked.url), heartbeat)


class Webhook:
    """See ports.notifier."""

    def __init__(self, url: str, heartbeat: str | None) -> None:
        self._url = url
        self._heartbeat = heartbeat
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = requests.adapters.HTTPAdapter()
        adapter.poolmanager.pool_classes_by_scheme = POOLS
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def tell(self, page: Page, timeout_s: float) -> None:
        """See ports.notifier."""
        first = f"[{page.severity}] {page.homeserver}, rollout {page.deploy_id}: {page.text}"
        at = datetime.fromtimestamp(page.at_s, tz=UTC).isoformat(timespec="seconds")
        body = {**asdict(page), "at": at, "sentence": page.text, "text": "\n".join(filter(None, (first, page.what_next)))}
        self._ask("POST", self._url, body, timeout_s)

    def beat(self, timeout_s: float) -> None:
        """See ports.notifier."""
        if self._heartbeat is not None:
            self._ask("GET", self._heartbeat, None, timeout_s)

    def _ask(self, method: str, url: str, body: Mapping[str, object] | None, timeout_s: float) -> None:
        what = "the heartbeat" if body is None else "the webhook"
        try:
            with self._session.request(method, url, json=body, timeout=timeout_s, stream=True, allow_redirects=False) as answer:
                answer.raw.read1(ANSWER_BYTES_MAX)
                status = answer.status_code
        except (requests.RequestException, HTTPError) as error:
            # Its text holds the address.
            raise TransientDriverError(f"{what} could not be reached", where="notifier_driver", why=type(error).__name__) from None
        if not requests.codes.ok <= status < requests.codes.multiple_choices:
            raise TransientDriverError(f"{what} answered {status}", where="notifier_driver")
