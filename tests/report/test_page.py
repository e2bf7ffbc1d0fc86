"""The templates' own filters."""

from selftrain.report.page import with_code


def test_backticks_are_code_and_names_stay_text() -> None:
    told = with_code("no pseudo-label of <b>cat</b>; lower `select.threshold` or `a<b`")
    assert str(told) == (
        "no pseudo-label of &lt;b&gt;cat&lt;/b&gt;; lower <code>select.threshold</code> or <code>a&lt;b</code>"
    )
