"""
Who may do what: tokens, and the roles that tests make.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/; for the words of a refusal
staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go in kubernetes/kubernetes.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, name_of
from tests.kubernetes.server.refusals import RefusedError
from tests.kubernetes.server.store import Store

ADMINISTRATORS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody wants to do; *plural* may be one that nobody knows."""

    verb: str
    group: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class Access:
    """Tokens and roles."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.administrator = secrets.token_urlsafe(24)
        self._users = {self.administrator: User("kubernetes-admin", (ADMINISTRATORS, "system:authenticated"))}

    def user(self, header: str | None) -> User:
        found = self._users.get((header or "").removeprefix("Bearer "))
        if found is None:
            raise RefusedError(401, "Unauthorized", "Unauthorized")
        return found

    def token(self, namespace: str, account: str) -> str:
        """Make a token for a service account."""
        token = secrets.token_urlsafe(24)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        self._users[token] = User(f"system:serviceaccount:{namespace}:{account}", groups)
        return token

    def require(self, user: User, act: Act) -> None:
        if not self.why(user, act):
            raise _forbidden(user, act)

    def why(self, user: User, act: Act) -> str:
        """Return why somebody may, or nothing where nobody said so."""
        if ADMINISTRATORS in user.groups:
            return "system:masters"
        # Everybody may ask what they may: the cluster role system:basic-user.
        if act.group == "authorization.k8s.io" and act.plural.startswith("selfsubject") and act.verb == "create":
            return (
                'RBAC: allowed by ClusterRoleBinding "system:basic-user" of ClusterRole "system:basic-user" to Group "system:authenticated"'
            )
        for binding, rules in self._bound(user, act.namespace):
            if any(_allows(rule, act) for rule in rules):
                reference = binding["roleRef"]
                return (
                    f'RBAC: allowed by {binding["kind"]} "{name_of(binding)}" of {reference["kind"]} "{reference["name"]}" to "{user.name}"'
                )
        return ""

    def rules(self, user: User, namespace: str) -> list[Object]:
        """List all rules for somebody in a namespace."""
        if ADMINISTRATORS in user.groups:
            return [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
        asking = {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": reviews}
        return [asking, *(rule for _, rules in self._bound(user, namespace) for rule in rules)]

    def _bound(self, user: User, namespace: str) -> Iterator[tuple[Object, list[Object]]]:
        everywhere = self._store.all(BY_NAME["ClusterRoleBinding"])
        here = self._store.all(BY_NAME["RoleBinding"], namespace) if namespace else []
        for binding in [*everywhere, *here]:
            if any(_is(subject, user) for subject in binding.get("subjects") or []):
                reference = binding["roleRef"]
                within = namespace if reference["kind"] == "Role" else ""
                role = self._store.get(BY_NAME[reference["kind"]], within, reference["name"])
                yield binding, (role or {}).get("rules") or []


def _is(subject: Object, user: User) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace')}:{subject['name']}"
    return subject["name"] == user.name if subject["kind"] == "User" else subject["name"] in user.groups


def _allows(rule: Object, act: Act) -> bool:
    wanted = act.plural + (f"/{act.subresource}" if act.subresource else "")
    resources = rule.get("resources") or []
    names = rule.get("resourceNames") or []
    return (
        (act.verb in rule["verbs"] or "*" in rule["verbs"])
        and (act.group in (rule.get("apiGroups") or []) or "*" in (rule.get("apiGroups") or []))
        and (wanted in resources or "*" in resources or (bool(act.subresource) and f"*/{act.subresource}" in resources))
        and (not names or act.name in names)
    )


def _forbidden(user: User, act: Act) -> RefusedError:
    what = act.plural + (f"/{act.subresource}" if act.subresource else "")
    whole = f"{act.plural}.{act.group}" if act.group else act.plural
    whose = f'{whole} "{act.name}"' if act.name else whole
    where = f' in the namespace "{act.namespace}"' if act.namespace else " at the cluster scope"
    why = f'User "{user.name}" cannot {act.verb} resource "{what}" in API group "{act.group}"{where}'
    details = ({"name": act.name} if act.name else {}) | ({"group": act.group} if act.group else {}) | {"kind": act.plural}
    return RefusedError(403, "Forbidden", f"{whose} is forbidden: {why}", details)


def reviewed(access: Access, user: User, said: Object) -> Object:
    """Answer a SelfSubjectAccessReview."""
    wanted = said["spec"].get("resourceAttributes") or {}
    act = Act(
        wanted.get("verb", ""),
        wanted.get("group", ""),
        wanted.get("resource", ""),
        wanted.get("namespace", ""),
        wanted.get("name", ""),
        wanted.get("subresource", ""),
    )
    why = access.why(user, act)
    status = {"allowed": bool(why)} | ({"reason": why} if why and why != ADMINISTRATORS else {})
    return {**said, "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "status": status}


def ruled(access: Access, user: User, said: Object) -> Object:
    """
    Answer a SelfSubjectRulesReview: RBAC lists all it has, so nothing is incomplete.

    Source: pkg/registry/authorization/selfsubjectrulesreview/rest.go in kubernetes/kubernetes.
    """
    namespace = said["spec"].get("namespace") or ""
    if not namespace:
        raise RefusedError(400, "BadRequest", "no namespace on request")
    status = {"resourceRules": access.rules(user, namespace), "nonResourceRules": [], "incomplete": False}
    return {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {}, "status": status}


# How what is only asked is answered.
ANSWERS = {"SelfSubjectAccessReview": reviewed, "SelfSubjectRulesReview": ruled}
