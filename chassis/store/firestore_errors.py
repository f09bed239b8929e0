"""gRPC statuses of Firestore as the port's errors, and as what to do when the store cannot even be opened."""

from typing import Final

from grpc import StatusCode
from grpc.aio import AioRpcError

from chassis.errors import ApiError, internal
from chassis.settings import ConfigError
from chassis.store.port import (
    DocumentTooLarge,
    StoreCorrupt,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    UndeclaredQuery,
)

MAYBE: Final = "The store did not answer, and whether the change was made cannot be told."
REFUSALS: Final = frozenset({StatusCode.FAILED_PRECONDITION, StatusCode.ALREADY_EXISTS, StatusCode.NOT_FOUND})
"""How a commit whose precondition does not hold is answered."""

_TRANSIENT: Final = frozenset({StatusCode.UNAVAILABLE, StatusCode.ABORTED})
_NOT_APPLIED: Final = REFUSALS | {
    StatusCode.ABORTED,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.OUT_OF_RANGE,
    StatusCode.PERMISSION_DENIED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.UNIMPLEMENTED,
}
_PLUGIN: Final = "metadata from plugin"
"""How gRPC says that the credentials could not be turned into a token."""


def is_transient(failure: BaseException) -> bool:
    """Whether another attempt may do better: UNAVAILABLE, and ABORTED, which is contention."""
    return isinstance(failure, AioRpcError) and failure.code() in _TRANSIENT


def may_be_applied(failure: AioRpcError) -> bool:
    """Whether the commit that was answered so may have happened."""
    return failure.code() not in _NOT_APPLIED


def translated(failure: AioRpcError) -> ApiError:  # noqa: PLR0911 - one return a status reads best
    """The error that a caller sees; the server's own text, which names paths, stays behind it."""
    code = failure.code()
    if code in {StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}:
        return StoreTimeout()
    if code is StatusCode.RESOURCE_EXHAUSTED:
        return StoreFull("The database's quota is used up.")
    if code is StatusCode.FAILED_PRECONDITION and "index" in _details(failure):
        return UndeclaredQuery(
            "The database lacks an index that this release declares, or is still building it: deploy "
            "firestore.indexes.json (docs/firestore.md)."
        )
    if code is StatusCode.INVALID_ARGUMENT and _tells_of_size(failure):
        return DocumentTooLarge("The document or the commit is larger than the database takes.")
    if code is StatusCode.DATA_LOSS:
        return StoreCorrupt("The database lost data.")
    if code in {StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED}:
        return StoreUnavailable("The database refuses this service's credentials.")
    if code in {StatusCode.INVALID_ARGUMENT, StatusCode.OUT_OF_RANGE, StatusCode.UNIMPLEMENTED}:
        return internal()
    return StoreUnavailable()


def at_start(failure: AioRpcError, project: str, database: str) -> ConfigError | ApiError:
    """Why the first call failed, and what to run: ConfigError for what waiting does not mend."""
    code, where = failure.code(), f"BAS_STORE_URL=firestore://{project}/{database}"
    if code is StatusCode.NOT_FOUND:
        return ConfigError(
            f"{where}: the project {project!r} has no Firestore database {database!r}. Make it with `gcloud firestore "
            f"databases create --project={project} --database='{database}' --location=…`, or correct the URL."
        )
    if code is StatusCode.PERMISSION_DENIED:
        return ConfigError(
            f"{where}: the credentials may not use this database ({failure.details()}). Check the project's name, and "
            f"that its Firestore API is on: `gcloud services enable firestore.googleapis.com --project={project}`; then "
            f"grant the account the role: `gcloud projects add-iam-policy-binding {project} "
            "--member=serviceAccount:… --role=roles/datastore.user`."
        )
    if code is StatusCode.UNAUTHENTICATED or _PLUGIN in _details(failure):
        return no_credentials(where, failure.details() or "")
    if code in {StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION}:
        return ConfigError(
            f"{where} is not accepted ({failure.details()}): the database must be one in Firestore native mode."
        )
    if code is StatusCode.UNAVAILABLE:
        return StoreUnavailable(f"{where} cannot be reached ({failure.details()}).")
    return translated(failure)


def no_credentials(where: str, detail: str) -> ConfigError:
    return ConfigError(
        f"{where}: there are no valid Google credentials ({detail.strip().rstrip('.')}). Run `gcloud auth "
        "application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file; for the "
        "emulator set FIRESTORE_EMULATOR_HOST=host:port."
    )


def _details(failure: AioRpcError) -> str:
    return (failure.details() or "").lower()


def _tells_of_size(failure: AioRpcError) -> bool:
    return any(word in _details(failure) for word in ("maximum", "too large", "too big", "exceed", "longer than"))
