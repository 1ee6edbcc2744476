"""Tokens that are made at run time: each reads, asks whoever owns them, answers."""

from waguard.api.asked import Asked
from waguard.api.schemas import Options, RotateOptions, TokenOptions
from waguard.core.access import Scope, Token
from waguard.core.shown import TokenList, TokenMade, TokenView


async def list_tokens(asked: Asked, _options: Options) -> TokenList:
    """The tokens that were made at run time, the newest first, and never what their bearers show."""
    return TokenList([_view(asked, one) for one in asked.access.made.listed()])


async def create(asked: Asked, options: TokenOptions) -> TokenMade:
    """Make a token. What its bearer shows is in this answer, and is kept nowhere."""
    made, shown = await asked.access.made.create(
        options.name,
        [Scope(one) for one in options.scopes],
        options.clients,
        options.lasts_s,
        options.labels,
    )
    return TokenMade(shown, _view(asked, made))


async def rotate(asked: Asked, options: RotateOptions) -> TokenMade:
    """Give a token another secret and a new term; its bearers may show the earlier one for ``overlap_s`` more."""
    made, shown = await asked.access.rotate(asked.request.match_info["id"], options.overlap_s)
    return TokenMade(shown, _view(asked, made))


async def revoke(asked: Asked, _options: Options) -> TokenView:
    """Take a token back, at once; who is attached by it is detached."""
    return _view(asked, await asked.access.revoke(asked.request.match_info["id"]))


def _view(asked: Asked, token: Token) -> TokenView:
    return TokenView(
        token.id,
        token.name,
        asked.access.made.state(token),
        token.scopes,
        token.clients,
        token.created_at,
        token.created_by,
        token.expires_at,
        token.used_at,
        token.revoked_at,
        token.labels,
    )
