"""The documents keep up with the code: links lead somewhere, every shape is drawn, every plan in them can be run."""

import re
from pathlib import Path

import pytest

from raftbed.faults.shapes import KILL_SHAPES, PARTITION_SHAPES
from raftbed.plan import make_plan, read_settings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The names by which headings can be linked to, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_relative_link_leads_somewhere(document):
    links = LINK.findall(BLOCK.sub("", document.read_text()))
    dead = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize(("kind", "shapes"), [("Partitions", PARTITION_SHAPES), ("Kills", KILL_SHAPES)])
def test_every_shape_of_a_fault_has_its_row(kind, shapes):
    section = (ROOT / "docs/faults.md").read_text().partition(f"\n## {kind}\n")[2]
    table = section.partition("| shape |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == list(shapes)


def plans() -> list[tuple[str, str]]:
    """(document, text) of each block of TOML that is a whole plan."""
    found = []
    for document in DOCUMENTS:
        for language, text in BLOCK.findall(document.read_text()):
            if language == "toml" and text.startswith("test ="):
                found.append((relative(document), text))
    return found


@pytest.mark.parametrize(("document", "text"), plans(), ids=[document for document, _ in plans()])
def test_plans_in_the_documents_can_be_run(document, text, tmp_path):
    (tmp_path / "plan.toml").write_text(text)
    plan = make_plan(read_settings(tmp_path / "plan.toml"), seed=1)
    assert plan.schedule
