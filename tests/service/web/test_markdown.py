"""Model cards become HTML that says what they say, and nothing else."""

import pytest

from service.web.markdown import parts, to_html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# Pets\n\nTells *cats*\nfrom dogs.", '<h2 id="card-pets">Pets</h2>\n<p>Tells *cats* from dogs.</p>'),
        ("## Use", '<h3 id="card-use">Use</h3>'),
        ("####### seven", "<p>####### seven</p>"),
        ("- a\n- **b**", "<ul><li>a</li><li><strong>b</strong></li></ul>"),
        ("from `a` to **b**", "<p>from <code>a</code> to <strong>b</strong></p>"),
        ("**<b>**, `<i>`", "<p><strong>&lt;b&gt;</strong>, <code>&lt;i&gt;</code></p>"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("{0} {}", "<p>{0} {}</p>"),
        ("![A plot](plot.png)",
         '<figure id="card-a-plot"><img src="data:x" alt="A plot"><figcaption>A plot</figcaption></figure>'),
        ("![No plot](other.png)", ""),
        ('![" x](plot.png)',
         '<figure id="card-x"><img src="data:x" alt="&#34; x"><figcaption>&#34; x</figcaption></figure>'),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_cards_have(text: str, html: str) -> None:
    """Headings, lists, paragraphs, emphasis and known pictures are made; all else is text, HTML and links too."""
    assert to_html(text, {"plot.png": "data:x"}) == html


def test_tables() -> None:
    """A head that is empty is left out, a row's first cell names it, and rows may have any number of cells."""
    bare = to_html("| | |\n|---|---|\n| accuracy | **9** |\n| odd |\n| a | b | c |\n", {})
    assert "<thead>" not in bare
    assert '<tr><th scope="row">accuracy</th><td><strong>9</strong></td></tr>' in bare
    assert '<tr><th scope="row">odd</th></tr>' in bare
    assert '<tr><th scope="row">a</th><td>b</td><td>c</td></tr>' in bare
    headed = to_html("| label | recall |\n|:--|--:|\n| <x> | 1 |", {})
    assert '<thead><tr><th scope="col">label</th><th scope="col">recall</th></tr></thead>' in headed
    assert '<tr><th scope="row">&lt;x&gt;</th><td>1</td></tr>' in headed


def test_parts_lead_to_what_is_there() -> None:
    """Sections and pictures that are shown have ids, which are the same in the list of them."""
    text = (
        "# Pets\n\n## By class\n\n### Not this\n\n![Mistakes: the surest](a.png)\n\n![No](b.png)\n\n## <Use> & limits"
    )
    found = parts(text, {"a.png"})
    assert [part.title for part in found] == ["By class", "Mistakes", "<Use> & limits"]
    html = to_html(text, {"a.png": "a.png"})
    assert all(f'id="{part.id}"' in html for part in found)
