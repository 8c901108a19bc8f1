"""Instructions in Markdown: what becomes HTML, and what stays the text that somebody wrote."""

from __future__ import annotations

import pytest

from webapp.views.markdown import MOST_CHARS, render


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("# Birds", "<h3>Birds</h3>"),
        ("**owl**", "<strong>owl</strong>"),
        ("- a\n- b", "<li>a</li>"),
        ("one\ntwo", "one<br />\ntwo"),
        ("~~no~~", "<s>no</s>"),
        ("|a|\n|-:|\n|1|", '<td class="at-right">1</td>'),
        ("[x](https://example.org)", '<a href="https://example.org" rel="noopener noreferrer nofollow" target="_blank">x</a>'),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a <b onclick=x>b</b>", "&lt;b onclick=x&gt;"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("[x](data:text/html,hi)", "[x](data:text/html,hi)"),
        ("```html\n<i>\n```", "&lt;i&gt;"),
    ],
)
def test_markdown_is_shown_and_html_stays_text(written: str, shown: str) -> None:
    assert shown in render(written)


@pytest.mark.parametrize("written", ["|a|\n|:-:|\n|1|", "![p](http://other.example/p.png)", "<style>*{}</style>", "<svg onload=x>"])
def test_nothing_that_the_content_security_policy_refuses_comes_out(written: str) -> None:
    html = render(written)
    assert not any(part in html for part in ("style=", "<img", "<style", "<svg", "<script"))


def test_instructions_without_end_are_cut() -> None:
    assert len(render("a" * (2 * MOST_CHARS))) < MOST_CHARS + 20
