"""What can be wrong with a request, whatever it asks for."""

from waguard.errors.base import WaguardError


class RequestError(WaguardError):
    """Requests"""  # their messages have what the caller has sent, and nothing else


class InvalidClientCode(RequestError, code="invalid_client_code", http=400):
    """What stands where a client code belongs is none."""

    do = "1 to 64 of A-Z a-z 0-9 _ -, the first one a letter or digit."


class InvalidRequest(RequestError, code="invalid_request", http=400):
    """The body, the query or the headers are not of the form that the route takes."""

    do = "The message names what is wrong, the hint what is known."


class Unauthorized(RequestError, code="unauthorized", http=401):
    """There is no token, or one that is not known here."""

    do = "Send `Authorization: Bearer TOKEN`. See: waguard token"


class TokenExpired(Unauthorized, code="token_expired", http=401):
    """The token's term is over, or another has come in its place."""

    do = "Ask the admin for its new secret: waguard token rotate NAME"


class TokenRevoked(Unauthorized, code="token_revoked", http=401):
    """The token was revoked."""

    do = "Ask the admin for another one: waguard token create NAME"


class TooManyRequests(RequestError, code="too_many_requests", http=429, again=True):
    """A token has asked for what costs much of one client too often; ``retry_after_s``."""

    do = "Ask again after `Retry-After`. An admin sets the limit: `api.costly_per_minute`."


class Forbidden(RequestError, code="forbidden", http=403):
    """The token is not for this client, or has not the scope of this route."""

    do = "Use the client's own token, or the admin's."


class HostNotAllowed(RequestError, code="host_not_allowed", http=403):
    """The `Host` header names no host of this control port."""

    do = "Use 127.0.0.1 or localhost, or name the host in `api.allowed_hosts`."


class CrossSite(RequestError, code="cross_site", http=403):
    """A page of another site asks."""

    do = "Ask from a server, and not from a page."


class NotFound(RequestError, code="not_found", http=404):
    """There is no such path."""

    do = "The routes are in [http-api.md](http-api.md)."


class TokenNotFound(RequestError, code="token_not_found", http=404):
    """No token has this id or name, or it was revoked."""

    do = "See which there are: waguard token list"


class WebhookNotFound(RequestError, code="webhook_not_found", http=404):
    """No webhook has this id."""

    do = "See which there are: waguard webhook list"


class MethodNotAllowed(RequestError, code="method_not_allowed", http=405):
    """The path is there, and takes other methods; `Allow` has them."""

    do = "Use one of those."


class NotAcceptable(RequestError, code="not_acceptable", http=406):
    """None of the types in `Accept` is one that the answer comes in."""

    do = "The message names the types."


class TokenNameTaken(RequestError, code="token_name_taken", http=409):
    """There is a token of this name that is taken still."""

    do = "Take another name, or rotate that one: waguard token rotate NAME"


class TooManyTokens(RequestError, code="too_many_tokens", http=409):
    """There are as many tokens as are kept, those that ended in the last 30 days among them."""

    do = "Use one token for several clients."


class TooManyWebhooks(RequestError, code="too_many_webhooks", http=409):
    """There are as many webhooks as may be."""

    do = "Delete one: waguard webhook delete ID"


class RequestTimeout(RequestError, code="request_timeout", http=408, again=True):
    """The body did not arrive in time."""

    do = "Send it without a pause of `api.request_s`."


class BodyTooLarge(RequestError, code="body_too_large", http=413):
    """The body has more than `api.max_body_kb` allows, or an upload more than `relay.upload_mb`."""

    do = "Send less, or raise the limit that the message names."


class PreconditionFailed(RequestError, code="precondition_failed", http=412):
    """The value or the session is not as `If-Match` or `If-None-Match` wants it; nothing has changed. ``etag`` is the one that it has now, if it is there."""

    do = "Get it, and try again with its ETag."


class ValueTooLarge(RequestError, code="value_too_large", http=413):
    """The value has more than 64 KiB."""

    do = "Keep it elsewhere, or in several values."


class IdempotencyKeyReused(RequestError, code="idempotency_key_reused", http=422):
    """The `Idempotency-Key` came with another request before."""

    do = "Draw a new key for each request."


class ExpectationFailed(RequestError, code="expectation_failed", http=417):
    """The `Expect` header expects something else than `100-continue`."""

    do = "Leave it out."


class CleanupFailed(RequestError, code="cleanup_failed"):
    """A step of the cleanup has failed: only `/api/whatsapp/force-cleanup` answers so, elsewhere the answer has the steps."""

    do = "See: waguard cleanup CODE"
