"""Access tokens: make, list, revoke; and which one a request carries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from barlow_lab.specs import Fault
from barlow_lab.specs.common import NAME_RULE
from service.api import audit
from service.api.auth import ANONYMOUS, BOOTSTRAP, CallerDep, Guard
from service.api.bodies import JsonBody
from service.api.deps import SessionDep
from service.api.presentation import ROOT
from service.api.problems import Problem, responses
from service.api.token_secrets import new_secret, sha256
from service.api.token_views import DURATION_RULE, TokenMade, TokenRequest, Tokens, TokenView, Whoami, duration
from service.callers import Role
from service.database.tables import Token
from service.ledger.attempts import SCHEDULER
from service.ledger.dependants import LEDGER

router = APIRouter(tags=["tokens"])

RESERVED = {BOOTSTRAP, ANONYMOUS, SCHEDULER, LEDGER}
"""Who else stands in events: a token or a user of this name would pass for them."""

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TokenRequest"}}},
    }
}


@router.get("/whoami", operation_id="whoami", responses=responses())
def whoami(caller: CallerDep) -> Whoami:
    """Whose token the request carries, what it may do and until when."""
    return Whoami(name=caller.name, user=caller.user, role=caller.role, expires_at=caller.expires_at)


@router.post(
    "/tokens",
    operation_id="create_token",
    status_code=201,
    openapi_extra=_BODY,
    responses=responses(
        "malformed-json", "name-taken", "tokens-off", "body-too-large", "unsupported-media-type", "invalid-token"
    ),
)
def create_token(
    request: Request, body: JsonBody, session: SessionDep, caller: CallerDep, response: Response
) -> TokenMade:
    """Make a token. Its secret stands in this answer and nowhere else."""
    wanted = _read(body)
    guard: Guard = request.app.state.guard
    if not guard.on:
        # Everybody on the machine could make one now that counts once the API is guarded.
        raise Problem("tokens-off", "this API asks for no tokens; set BARLOW_ADMIN_TOKEN and start it again")
    secret = new_secret()
    row = {
        "name": wanted.name,
        "user_name": wanted.user or wanted.name,
        "role": wanted.role,
        "sha256": sha256(secret),
        "created_by": caller.name,
        "expires_at": None if wanted.expires_in is None else func.now() + duration(wanted.expires_in),
    }
    made = session.scalar(insert(Token).values(row).on_conflict_do_nothing(index_elements=["name"]).returning(Token))
    if made is None:
        said = (
            f"there is, or was, a token {wanted.name!r}; take another name. If the answer with its secret was lost, "
            f"revoke it: DELETE {ROOT}/tokens/{wanted.name}"
        )
        raise Problem("name-taken", said, faults=[Fault("/name", said)])
    expires = {} if made.expires_at is None else {"expires_at": made.expires_at.isoformat()}
    detail = {"user": made.user_name, "role": made.role, **expires}
    audit.record(session, request, caller, audit.TOKEN_CREATED, made.name, detail)
    response.headers["Cache-Control"] = "no-store"
    return TokenMade(**dict(_view(made)), secret=secret)


@router.get("/tokens", operation_id="list_tokens", responses=responses())
def list_tokens(session: SessionDep) -> Tokens:
    """List the tokens, revoked ones too, oldest first."""
    return Tokens(items=[_view(row) for row in session.scalars(select(Token).order_by(Token.created_at, Token.name))])


@router.delete("/tokens/{name}", operation_id="revoke_token", responses=responses("not-found", "bootstrap-token"))
def revoke_token(
    request: Request, name: Annotated[str, Path(description="Name of a token")], session: SessionDep, caller: CallerDep
) -> TokenView:
    """Revoke a token: its next request is refused, and its streams end within seconds. A download under way goes on."""
    if name == BOOTSTRAP:
        raise Problem("bootstrap-token", "change BARLOW_ADMIN_TOKEN and start the API again: the old one ends with it")
    row = session.scalar(select(Token).where(Token.name == name).with_for_update())
    if row is None:
        raise Problem("not-found", f"there is no token {name!r}; GET {ROOT}/tokens lists them all")
    if row.revoked_at is None:
        row.revoked_at = session.scalars(select(func.now())).one()
        audit.record(session, request, caller, audit.TOKEN_REVOKED, name, {"user": row.user_name, "role": row.role})
    return _view(row)


def _read(body: Any) -> TokenRequest:
    try:
        wanted = TokenRequest.model_validate(body)
    except ValidationError as error:
        faults = [Fault("".join(map(_pointer, item["loc"])), _words(item)) for item in error.errors()]
    else:
        faults = [
            Fault(f"/{field}", f"{value!r} is the service's own; take another name")
            for field, value in (("name", wanted.name), ("user", wanted.user))
            if value is not None and value.casefold() in RESERVED
        ]
        if not faults:
            return wanted
    raise Problem("invalid-token", "; ".join(f"{f.pointer or 'body'}: {f.message}" for f in faults), faults=faults)


def _pointer(part: Any) -> str:
    return "/" + str(part).replace("~", "~0").replace("/", "~1")


def _words(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown field; a token has name, user, role and expires_in"
    if item["type"] == "missing":
        return str(item["msg"])
    return {("name",): NAME_RULE, ("user",): NAME_RULE, ("expires_in",): DURATION_RULE}.get(
        item["loc"], str(item["msg"])
    )


def _view(row: Token) -> TokenView:
    return TokenView(
        name=row.name,
        user=row.user_name,
        role=Role(row.role),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
