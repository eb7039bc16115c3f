"""The journal of the page's work: whatever is done, undone and killed, it holds what was answered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mal_trt.base.errors import InputError
from mal_trt.serve.annotations import STATES, Annotation, from_text
from mal_trt.serve.journal import Change, Journal

PICTURES = (1, 2)


def opened(path: Path) -> Journal:
    journal = Journal(path)
    if journal.began:
        journal.insert("picture", "id, upload, name, stored", [(id, 0, f"{id}.png", f"{id}.png") for id in PICTURES])
    return journal


def now(journal: Journal) -> dict[int, list[Annotation]]:
    return {picture: journal.annotations(picture) for picture in PICTURES}


def replayed(journal: Journal) -> dict[int, list[Annotation]]:
    """What the steps alone lead to, from nothing."""
    objects: dict[int, Annotation] = {}
    for id, after in journal.execute("SELECT annotation, after FROM change ORDER BY rowid"):
        one = from_text(after)
        if one is None:
            objects.pop(id)
        else:
            objects[id] = one
    return {p: [one for id, one in sorted(objects.items()) if one.picture == p] for p in PICTURES}


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["create", "move", "state", "delete", "accept", "undo", "undo", "redo", "reopen"]),
        st.sampled_from(PICTURES),
        st.integers(0, 5),
        st.floats(0, 50),
    ),
    max_size=25,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_undo_and_redo_lead_where_a_list_of_states_says(actions: list[Any], tmp_path_factory: Any) -> None:
    """Against the plainest model there is: a list of all states of a picture, and a place in it."""
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    journal = opened(path)
    states: dict[int, list[list[Annotation]]] = {picture: [[]] for picture in PICTURES}
    places = dict.fromkeys(PICTURES, 0)
    for what, picture, which, number in actions:
        objects = journal.annotations(picture)
        one = objects[which % len(objects)] if objects else None
        changes: list[Change] = []
        if what == "create":
            new = Annotation(0, picture, number, 0, number + 10, 10, 1)
            (id,) = journal.take(picture, what, [Change(None, new)])
            new = replace(new, id=id)
            objects = [*objects, new]
        elif what in ("undo", "redo"):
            place = places[picture] + (1 if what == "redo" else -1)
            there = 0 <= place < len(states[picture])
            assert (journal.undo if what == "undo" else journal.redo)(picture) == there
            if there:
                places[picture] = place
            assert journal.annotations(picture) == states[picture][places[picture]]
            continue
        elif what == "reopen":
            before = now(journal)
            journal.close()
            journal = opened(path)
            assert now(journal) == before
            continue
        elif what == "accept":
            changes = [Change(old, replace(old, state="accepted")) for old in objects]
        elif one is None:
            continue
        elif what == "move":
            changes = [Change(one, replace(one, x0=number, x1=number + 5, counts="11", area=3))]
        elif what == "state":
            changes = [Change(one, replace(one, state=STATES[which % 3]))]
        else:
            changes = [Change(one, None)]
        if what != "create":
            journal.take(picture, what, changes)
            changed = {change.before.id: change.after for change in changes if change.before}
            objects = [new for old in objects if (new := changed.get(old.id, old)) is not None]
        assert journal.annotations(picture) == objects
        states[picture] = [*states[picture][: places[picture] + 1], objects]
        places[picture] += 1
    assert replayed(journal) == now(journal)
    journal.close()


def test_a_step_that_is_sent_twice_is_taken_once(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    journal.take(1, "create", [Change(None, Annotation(0, 1, 0, 0, 5, 5, 1))], token="abcdefgh")
    assert journal.taken("abcdefgh") and not journal.taken("abcdefgi") and not journal.taken(None)


def test_looked_at_is_undone_too(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    looked = "SELECT looked FROM picture WHERE id=1"
    journal.take(1, "accept", [], looked=True)
    assert journal.execute(looked) == [(1,)]
    assert journal.undo(1) and journal.execute(looked) == [(0,)]
    assert journal.redo(1) and journal.execute(looked) == [(1,)]
    assert not journal.redo(1)


def test_a_mask_of_a_box_that_moved_meanwhile_is_not_kept(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    (id,) = journal.take(1, "create", [Change(None, Annotation(0, 1, 0, 0, 5, 5, 1))])
    before = journal.annotation(id)
    assert before is not None
    journal.take(1, "move", [Change(before, replace(before, x1=9))])
    assert journal.draw([replace(before, counts="03", area=4, score=0.5)]) == 0
    after = journal.annotation(id)
    assert after == replace(before, x1=9) and after.undrawn
    assert journal.draw([replace(after, counts="03", area=4, score=0.5)]) == 1
    assert journal.history(1) == ([1, 2], [])  # what the model draws is no step of anybody's


def test_two_servers_cannot_share_it_and_others_files_are_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    with pytest.raises(InputError, match="another server works on it"):
        Journal(tmp_path / "j")
    journal.remember("format", "99")
    journal.close()
    with pytest.raises(InputError, match="another version"):
        Journal(tmp_path / "j")
    (tmp_path / "other").write_bytes(b"no database, " * 100)
    with pytest.raises(InputError, match="not a journal of mal-trt serve"):
        Journal(tmp_path / "other")
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "none" / "j")


KILLED = """
import sys, os, signal
from pathlib import Path
from mal_trt.serve.annotations import Annotation
from mal_trt.serve.journal import Change, Journal
journal = Journal(Path(sys.argv[1]))
journal.insert("picture", "id, upload, name, stored", [(1, 0, "a", "a")])
number = 0
while True:
    number += 1
    journal.take(1, "create", [Change(None, Annotation(0, 1, number, 0, number + 5, 5, 1))])
    print(number, flush=True)
"""


def test_a_step_that_two_connections_bring_is_taken_once(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    change = Change(None, Annotation(0, 1, 0, 0, 5, 5, 1))
    assert [journal.take(1, "create", [change], token="one") for _ in range(2)] == [[1], [1]]
    assert [journal.undo(1, token="two") for _ in range(2)] == [True, True]
    assert len(journal.history(1)[1]) == 1 and not journal.annotations(1)


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "j"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(15)]
    os.kill(process.pid, signal.SIGKILL)
    answered += [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    journal = Journal(path)
    kept = journal.annotations(1)
    assert len(answered) >= 15 and answered == list(range(1, len(answered) + 1))
    assert len(kept) in (len(answered), len(answered) + 1)  # one may have been on its way
    assert [one.x0 for one in kept] == [float(n) for n in range(1, len(kept) + 1)]
    assert journal.execute("PRAGMA integrity_check") == [("ok",)]
    assert json.loads(json.dumps(journal.history(1)[0])) == list(range(1, len(kept) + 1))
