"""The page opens offline, says the verdict first and without JavaScript, and escapes whatever it was told."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from tests_support import HistoryBuilder, make_plan_for_tests, make_run, write_lines

from raftbed.analysis.checks import run_checks
from raftbed.analysis.operations import Window
from raftbed.analysis.report import page as page_module
from raftbed.analysis.report import plots, write_report
from raftbed.analysis.report.ledger import rows, who
from raftbed.analysis.report.page import affected, operation_text, timeline
from raftbed.analysis.report.view import gather, natural, script_safe
from raftbed.model import SECOND, FaultEvent, FaultStep, Verdict
from raftbed.store import Results, RunEvent, StatusSample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STEP = FaultStep("f01", "partition", "halves", 1.0, 3.0, ("n1", "n2", "n3"), "a plain cut")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&"


def stale_read(history: HistoryBuilder) -> HistoryBuilder:
    history.op(0, "write", "x", 1, call=1.0, end=1.1)
    history.op(1, "write", "x", 2, call=1.2, end=1.3)
    history.op(2, "read", "x", None, call=1.4, end=1.5, result=1, node="n3")
    return history.op(3, "write", "x", 4, call=1.45, end=None)


def a_run(tmp_path, history: HistoryBuilder, *, hostile: str = ""):
    plan = make_plan_for_tests(schedule=(STEP,), faults=("partition",), time_limit=5.0)
    run = make_run(tmp_path, plan)
    write_lines(run.history_path, history.sorted())
    times = (("injected", 1.0), ("proved", 1.2), ("healed", 3.0))
    detail = {"mechanism": hostile or "nft", "drops": {"n1": ["n2", "n3"], "n2": ["n1"], "n3": ["n1"]}}
    write_lines(
        run.faults_path,
        [FaultEvent(int(at * SECOND), "f01", "partition", "halves", s, plan.nodes, detail) for s, at in times],
    )
    roles = {"n1": "leader", "n2": "follower", "n3": "candidate"}
    write_lines(
        run.status_path,
        [
            StatusSample(int(at * SECOND), node, True, role, 2, "n1", 5, 5, 5)
            for at in (0.5, 1.0, 2.0)
            for node, role in roles.items()
        ],
    )
    marks = [
        ("phase", "clients", 0.4),
        ("phase", "heal", 4.0),
        ("phase", "recovery", 4.1),
        ("stall", f"stood still {hostile}", 2.0),
    ]
    write_lines(run.events_path, [RunEvent(int(at * SECOND), kind, said) for kind, said, at in marks])
    for node in plan.nodes:
        (run.node_directory(node) / "node.log").write_text(f"hello {hostile}\n")
    run.write_results(run_checks(run, plan.checks, time_limit=20, memory_limit=1 << 30))
    return run


def page_of(run) -> str:
    return write_report(run).read_text(encoding="utf-8")


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_verdict_comes_first_and_needs_no_script(tmp_path):
    page = without_scripts(page_of(a_run(tmp_path, stale_read(HistoryBuilder()))))
    body = page.partition("<body>")[2]
    assert re.search(r"<h1>.*invalid</h1>", body)
    assert body.index("</h1>") < body.index("What was checked")
    assert "raftbed run smoke-test --seed 1" in body
    assert "read → 1" in body
    assert "<svg" in body


def test_a_valid_run_shows_no_violation(tmp_path):
    history = HistoryBuilder().op(0, "write", "x", 1, call=1, end=2).op(0, "read", "x", None, call=5, end=6, result=1)
    page = page_of(a_run(tmp_path, history))
    assert 'id="violation"' not in page
    assert "<title>valid" in page


def test_the_file_is_private_and_asks_for_nothing_from_outside(tmp_path):
    run = a_run(tmp_path, stale_read(HistoryBuilder()))
    page = page_of(run)
    assert stat.S_IMODE(run.report_path.stat().st_mode) == 0o600
    head = page.partition("</head>")[0]
    assert "default-src 'none'" in head
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', without_scripts(page))


def test_whatever_it_was_told_is_escaped(tmp_path):
    history = stale_read(HistoryBuilder())
    history.op(4, "write", HOSTILE, HOSTILE, call=2, end=2.5, error=HOSTILE, node=HOSTILE)
    history.op(4, "read", HOSTILE, None, call=2.6, end=2.7, result=HOSTILE + "?")
    page = page_of(a_run(tmp_path, history, hostile=HOSTILE))
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 5


def test_a_run_that_was_cut_off_still_has_a_page(tmp_path):
    run = make_run(tmp_path, state="running")
    page = page_of(run)
    assert "The controller was cut off" in page
    assert "This run has not been checked" in page
    assert "No operations were recorded." in page


def test_unreadable_parts_become_a_sentence(tmp_path):
    run = a_run(tmp_path, stale_read(HistoryBuilder()))
    run.status_path.write_text("{}\n{}\n")
    (run.path / "plan.json").write_text("nonsense")
    page = page_of(run)
    assert "The plan could not be read" in page
    assert "The status samples could not be read" in page


def test_a_plot_that_fails_changes_neither_page_nor_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "_finished", lambda *a, **k: 1 / 0)
    page = page_of(a_run(tmp_path, stale_read(HistoryBuilder())))
    assert "could not be made: ZeroDivisionError" in page
    assert "<title>invalid" in page


def test_failing_keys_come_first(tmp_path):
    history = stale_read(HistoryBuilder())
    history.op(5, "write", "a", 9, call=1, end=2)
    view = gather(a_run(tmp_path, history))
    assert [row["key"] for row in view.keys] == ["x", "a"]


def test_keys_are_in_the_order_of_their_numbers_however_long():
    keys = ["r10", "r2", "r", "r02", "7", "k" + "9" * 5000, "k1" + "0" * 5000]
    assert sorted(keys, key=natural) == ["r", "r02", "r2", "7", "r10", "k" + "9" * 5000, "k1" + "0" * 5000]


def test_the_smaller_side_of_a_partition_is_marked():
    drops = {"n1": ["n2", "n3"], "n2": ["n1"], "n3": ["n1"]}
    assert affected({"injected": {"drops": drops}}, ("n1", "n2", "n3")) == ["n1"]
    assert affected({}, ("n1", "n2")) == ["n1", "n2"]


@pytest.mark.parametrize(
    ("f", "argument", "value", "type_", "text"),
    [
        ("read", None, 7, "ok", "read x → 7"),
        ("read", None, None, "fail", "read x → ?"),
        ("write", 7, 7, "ok", "write x 7"),
        ("cas", [1, 2], [1, 2], "info", "cas x 1 ⇒ 2"),
    ],
)
def test_operations_read_as_one_says_them(f, argument, value, type_, text):
    assert operation_text(f, "x", argument, value, type_) == text


def test_json_in_a_script_cannot_end_it():
    assert "<" not in script_safe({"a": HOSTILE})
    assert "\u2028" not in script_safe(HOSTILE)


def window(kind="partition", nodes=("n1", "n2", "n3"), **injected) -> Window:
    return Window(FaultStep("f01", kind, "any", 1.0, 3.0, nodes), nodes, injected=1, detail={"injected": injected})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (window(drops={"n1": ["n2", "n3"], "n2": ["n1"], "n3": ["n1"]}), "n1 ┊ n2 n3"),
        (window(drops={"n1": ["n2", "n3"]}), "n1 drops n2 n3"),
        (window(drops={"n2": ["n1"], "n3": ["n1"]}), "n2 n3 drop n1"),
        (window(drops={"n1": ["n2"], "n2": ["n3"], "n3": ["n1"]}), "n1 drops n2, n2 drops n3, n3 drops n1"),
        (window(kind="kill", nodes=("n1", "n2")), "n1 n2 killed"),
        (window(nodes=()), ""),
    ],
)
def test_the_ledger_says_on_whom_a_fault_acted(fault, said):
    assert who(fault) == said


def test_the_ledger_tells_plan_and_effect_of_each_fault(tmp_path):
    (row,) = rows(gather(a_run(tmp_path, stale_read(HistoryBuilder()))))
    assert (row.begin, row.end) == (int(1.4 * SECOND), int(3.4 * SECOND))  # clients began at 0.4 s
    assert row.window.injected == SECOND
    assert row.operations == 4
    assert row.served is None


def test_the_drawing_of_a_violation_names_the_faults_in_force(tmp_path):
    page = page_of(a_run(tmp_path, stale_read(HistoryBuilder())))
    violation = page.partition('id="violation"')[2].partition("</figure>")[0]
    assert ">f01 partition halves</text>" in violation


def test_all_plots_show_the_same_stretch_of_time(tmp_path):
    view = gather(a_run(tmp_path, stale_read(HistoryBuilder())))
    made, failures = plots.figures(view)
    assert not failures
    assert [figure["layout"]["xaxis"]["range"] for figure in made] == [[0.4, 3.0]] * 2


def test_of_very_many_operations_those_that_tell_most_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "_MOST_BARS", 20)
    history = stale_read(HistoryBuilder())
    for number in range(200):
        history.op(5, "write", "y", 100 + number, call=2 + number / 100, end=2.001 + number / 100)
    history.op(6, "write", "z", 9, call=2.5, end=2.6, type="fail")
    drawn = timeline(gather(a_run(tmp_path, history)))
    assert 10 < len(drawn["operations"]) <= 23
    assert drawn["omitted"] == 205 - len(drawn["operations"])
    assert sum(operation[8] for operation in drawn["operations"]) == 3, "the witness"
    assert {operation[3] for operation in drawn["operations"]} == {0, 1, 2}


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page from disk in a browser without any network; a picture or the page's elements, and the log."""
    arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={page.parent / 'profile'}",
        "--enable-logging=stderr", "--v=0", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=4000",
    ]  # fmt: skip
    assert CHROMIUM is not None
    command = [CHROMIUM, *arguments, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium")
class TestInABrowser:
    def test_it_opens_from_disk_with_no_console_message(self, tmp_path):
        run = a_run(tmp_path, stale_read(HistoryBuilder()), hostile=HOSTILE)
        shown = browse(write_report(run), "--dump-dom")
        assert "CONSOLE" not in shown.stderr
        assert 'class="main-svg"' in shown.stdout, "plotly drew nothing"
        assert 'id="zoom">' in shown.stdout, "the timeline's script did not come to its end"
        buttons = set(re.findall(r'data-title="([^"]*)"', shown.stdout))
        assert "Zoom in" in buttons
        assert not [name for name in buttons if "hare" in name or "loud" in name], "a button that uploads"

    def test_its_verdict_is_drawn_without_javascript(self, tmp_path):
        # What the browser draws with scripts off changes when the verdict is hidden: so it was there.
        page = page_of(a_run(tmp_path, stale_read(HistoryBuilder())))
        pictures = []
        for name, content in (("shown", page), ("hidden", page.replace("<h1>", '<h1 style="visibility: hidden">'))):
            (tmp_path / f"{name}.html").write_text(content, encoding="utf-8")
            # The browser itself takes pictures by script: only the page within the frame is to go without.
            frame = tmp_path / f"frame-{name}.html"
            frame.write_text(f'<iframe sandbox="" src="{name}.html" width="780" height="380"></iframe>')
            picture = tmp_path / f"{name}.png"
            browse(frame, "--window-size=800,400", f"--screenshot={picture}")
            pictures.append(picture.read_bytes())
        assert pictures[0] != pictures[1]


def test_a_broken_invariant_shows_the_records_that_contradict_each_other(tmp_path):
    record = {"node": "n1", "file": f"n1/{HOSTILE}", "line": 7, "text": f'{{"event": "{HOSTILE}"}}'}
    violation = {"invariant": "durability", "sentence": f"n1 forgot. {HOSTILE}", "records": [record]}
    run = a_run(tmp_path, stale_read(HistoryBuilder()))
    verdict = Verdict("raft-invariants", "invalid", "durability: n1 forgot.", {"violations": [violation]})
    run.write_results(Results("a run", "invalid", (verdict,)))
    page = page_of(run)
    assert "durability: n1 forgot." in page
    assert "line 7" in page
    assert HOSTILE not in page
