from wildaffect.report.bar import progress_bar


def test_a_log_gets_a_line_at_times_and_nothing_for_short_work(monkeypatch, capsys):
    for _ in progress_bar(range(1000)):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("wildaffect.report.bar.LOG_EVERY", 0.0)
    for _ in progress_bar(range(3), "drawing", miniters=1):
        pass
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert len(lines) > 3 and all(line.startswith("drawing") for line in lines) and "\r" not in said
