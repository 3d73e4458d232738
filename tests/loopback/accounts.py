"""Who may do what: the tokens of the double, and the rights that they give."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from tests.loopback.errors import HubError


@dataclass(frozen=True)
class Account:
    """Whom a token stands for. `only_repo` limits tokens of trusted publishing to a repository."""

    name: str
    can_write: bool
    organizations: tuple[str, ...] = ()
    only_repo: str | None = None

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where its repositories may be."""
        return (self.name, *self.organizations)


def _accounts() -> dict[str, Account]:
    return {
        "hf_writer": Account("me", can_write=True, organizations=("acme",)),
        "hf_reader": Account("me", can_write=False, organizations=("acme",)),
        "hf_other": Account("someone-else", can_write=True),
        "hf_expired": Account("me", can_write=True),
    }


@dataclass
class Accounts:
    """All tokens, those that have expired, and the short-lived ones given out for the CAS."""

    by_token: dict[str, Account] = field(default_factory=_accounts)
    expired: set[str] = field(default_factory=lambda: {"hf_expired"})
    cas: dict[str, tuple[str, float]] = field(default_factory=dict)

    def of(self, authorization: str | None) -> Account | None:
        """The account of an Authorization header; None for anonymous requests.

        Raises HubError (401) for a token that is unknown or has expired.
        """
        if authorization is None:
            return None
        token = authorization.removeprefix("Bearer ").strip()
        if token in self.expired:
            raise HubError(401, f'User Access Token "{token.removeprefix("hf_")}" is expired')
        if token not in self.by_token:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.by_token[token]

    def issue_for_cas(self, repo: str) -> tuple[str, int]:
        """A new bearer token for the CAS, and when it expires in seconds of Unix time."""
        token, expiry = f"xet_{secrets.token_hex(16)}", time.time() + 3600
        self.cas[token] = (repo, expiry)
        return token, int(expiry)

    def may_use_cas(self, token: str) -> bool:
        """Whether the CAS may serve a bearer of this token."""
        return token in self.cas and self.cas[token][1] > time.time()

    def repo_of_cas_token(self, authorization: str) -> str:
        """The repository that a token for the CAS was given out for."""
        return self.cas[authorization.partition(" ")[2]][0]

    def issue_for_publisher(self, repo: str) -> str:
        """A token of trusted publishing: it may write to one repository, and create none."""
        token = f"hf_jwt_{secrets.token_hex(16)}"
        owner = repo.split("/")[0]
        self.by_token[token] = Account(owner, can_write=True, only_repo=repo)
        return token
