"""The rules of a user: what a caller may set, and what follows from it. No I/O."""

from datetime import datetime

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from bas.users.v2.users_pb2 import User
from chassis.api.masks import apply_update
from chassis.errors import ApiError, Code, invalid_field
from services.users.email import NoAddress, claim_of


def registered(user_id: str, given: User, now: datetime) -> User:
    """The user that a create stores: the caller's fields of `given`, the rest ours."""
    user = User(
        user_id=user_id,
        email=given.email,
        display_name=given.display_name,
        metadata=given.metadata,
    )
    user.create_time.FromDatetime(now)
    user.update_time.FromDatetime(now)
    return user


def updated(current: User, patch: User, mask: FieldMask, now: datetime) -> User | None:
    """The user with what `mask` names taken from `patch`; None when nothing would change. Raises INVALID_ARGUMENT."""
    changed = apply_update(current, patch, mask)
    if changed == current:
        return None
    _forward(changed.update_time, now)
    return changed


def claim(address: str, field: str) -> str:
    """The claim of an address that came in `field`. Raises INVALID_ARGUMENT, which does not repeat it."""
    try:
        return claim_of(address)
    except NoAddress as refused:
        raise invalid_field(field, str(refused)) from None


def email_taken() -> ApiError:
    """Somebody else of the tenant has the address. Not said: who, and which address."""
    return ApiError(Code.ALREADY_EXISTS, "USER_EMAIL_TAKEN", "Another user has this e-mail address.")


def nobody() -> ApiError:
    """What a look-up by address answers when nobody has it, in words that do not repeat it."""
    return ApiError(Code.NOT_FOUND, "USER_NOT_FOUND", "There is no user with this e-mail address.")


def _forward(time: Timestamp, now: datetime) -> None:
    """Set to now, unless another replica's clock was ahead of ours: a time that was shown does not go back."""
    moment = Timestamp()
    moment.FromDatetime(now)
    if (moment.seconds, moment.nanos) > (time.seconds, time.nanos):
        time.CopyFrom(moment)
