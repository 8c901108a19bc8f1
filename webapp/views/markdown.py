"""A project's instructions: Markdown as people write it → HTML that is safe on any page.

Owns what of Markdown is understood: CommonMark with tables and strikethrough; raw HTML is shown as the text it is, pictures are
left as links (a picture would tell another site who labels), links open elsewhere without a way back. Must never be given HTML to
trust. Called by the pages and the preview.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

MOST_CHARS = 20_000


class _Renderer(RendererHTML):
    """HTML whose headings stand below those of the page and whose links are safe."""

    def heading_open(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        return f"<{_below(tokens[at].tag)}>"

    def heading_close(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        return f"</{_below(tokens[at].tag)}>\n"

    def th_open(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        return _cell(tokens[at])

    def td_open(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        return _cell(tokens[at])

    def link_open(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any) -> str:
        tokens[at].attrs |= {"rel": "noopener noreferrer nofollow", "target": "_blank"}
        return str(self.renderToken(tokens, at, options, env))


def _below(tag: str) -> str:
    return f"h{min(int(tag[1]) + 2, 6)}"


def _cell(token: Token) -> str:
    """Return a cell's start; its side as a class, because the content security policy takes no inline style."""
    side = str(token.attrs.get("style", "")).removeprefix("text-align:")
    return f'<{token.tag} class="at-{side}">' if side in ("left", "center", "right") else f"<{token.tag}>"


_reader = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True}, renderer_cls=_Renderer)
_reader.enable(["table", "strikethrough"]).disable(["image"])


def render(text: str) -> Markup:
    """Return the text as HTML for a template; more than `MOST_CHARS` characters are cut off."""
    return Markup(_reader.render(text[:MOST_CHARS]))
