import pytest

from selftrain.report.drawing import panels_figure


@pytest.mark.parametrize(("panels", "numbered"), [(1, {0}), (3, {0, 1, 2}), (4, {1, 2, 3}), (10, {7, 8, 9})])
def test_every_column_of_panels_that_share_has_numbers_below_its_lowest(panels: int, numbered: set[int]) -> None:
    """Of ten panels in three columns the last stands alone in its row."""
    _, axes = panels_figure(panels, share=True)
    shown = {place for place, panel in enumerate(axes) if panel.xaxis.get_tick_params()["labelbottom"]}
    assert shown == numbered
