import pytest

from framepred.players import explore


def test_a_page_without_a_kernel_shows_the_first_choices_and_says_so(monkeypatch, capsys):
    monkeypatch.setenv("FRAMEPRED_PLAYERS", "static")
    shown = explore(lambda n_digits, speed: (n_digits, speed), {"n_digits": [2, 1], "speed": [("usual", 0.1)]})
    assert shown == (2, 0.1)
    assert "n digits = 2, speed = usual" in capsys.readouterr().out


def test_a_live_notebook_gets_a_control_for_each_argument_that_calls_the_function(monkeypatch):
    monkeypatch.setenv("FRAMEPRED_PLAYERS", "live")
    calls = []
    box = explore(lambda n_digits: calls.append(n_digits), {"n_digits": [1, 2, 3]})
    (control, _output) = box.children
    assert control.options == (1, 2, 3)
    control.value = 3
    assert calls == [1, 3]


@pytest.mark.parametrize("controls", [{}, {"speed": []}])
def test_a_control_without_values_is_refused(controls):
    with pytest.raises(ValueError, match="no values"):
        explore(lambda **_: None, controls)
