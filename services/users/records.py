"""A user as two documents: the user, its fields by their proto names, and the claim on its e-mail address.

The etag is not stored: it is the document's version, known only after the commit, and filled in when a user is read.
The user's document names its claim: another release's way to normalize an address must not lose the old claim.
"""

from dataclasses import dataclass
from typing import Final

from bas.users.v2.users_pb2 import User
from chassis.api.ids import etag_of
from chassis.store.documents import MessageCodec
from chassis.store.port import Document, Fields, Key
from services.users.filters import COLLECTION

CLAIMS: Final = "emails"
"""Collection of the claims: the document of an address names the one user who has it."""

_CLAIM: Final = "email_claim"
_USER_ID: Final = "user_id"
_CODEC: Final = MessageCodec(User)


@dataclass(frozen=True, slots=True)
class Stored:
    """A user at a version, with the id of the claim on its address. `user.etag` is that version's. Decide on a copy:
    the message is not frozen."""

    tenant: str
    user: User
    claim: str
    version: str


def user_key(tenant: str, user_id: str) -> Key:
    return Key(tenant, COLLECTION, user_id)


def claim_key(tenant: str, claim: str) -> Key:
    return Key(tenant, CLAIMS, claim)


def user_fields(user: User, claim: str) -> Fields:
    """What is stored; every field that a list is ordered or filtered by is there, also when it is empty."""
    fields = _CODEC.fields(user)
    del fields["etag"]
    fields[_CLAIM] = claim
    return fields


def claim_fields(user_id: str) -> Fields:
    return {_USER_ID: user_id}


def stored(document: Document) -> Stored:
    user = _CODEC.message(document.fields)
    user.etag = etag_of(document.version)
    return Stored(document.key.tenant, user, str(document.fields[_CLAIM]), document.version)


def holder(document: Document) -> str:
    """The id of the user whose claim it is."""
    return str(document.fields[_USER_ID])
