"""Shards are what `label` makes, each written once; a run goes on where another stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from bucket import Bucket
from mal_trt import label
from mal_trt.base.errors import InputError, RunError
from mal_trt.distributed import label_shards, merge
from mal_trt.distributed import shard_labeler as labeling
from mal_trt.distributed.place import LOCK, Place
from mal_trt.distributed.shard_file import read_record, read_rows, schema
from mal_trt.distributed.shard_labeler import ShardLabeler, check_versions

Write = Callable[..., Any]
OPTIONS: dict[str, Any] = {"batch": 4, "device": "cpu", "threads": 1, "progress": False}
BAD = {"id": 1, "image_id": 99, "category_id": 3, "bbox": [0, 0, 5, 5]}


def by_id(path: Path) -> dict[Any, Any]:
    document = json.loads(path.read_text())
    found = {record["id"]: record for record in document["annotations"]}
    assert len(found) == len(document["annotations"]), "a box twice"
    return found


def whole(tmp_path: Path, images: Any, boxes: Any, model: Path, **options: Any) -> dict[Any, Any]:
    label(images, boxes, model, tmp_path / "whole.json", **OPTIONS, **options)
    return by_id(tmp_path / "whole.json")


@pytest.mark.parametrize("kind", ["nothing", "a folder", "a file"])
def test_what_is_no_run_of_shards(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "shards"
    if kind == "a folder":
        place.mkdir()
    elif kind == "a file":
        place.write_text("x")
    with pytest.raises(InputError, match="holds no shards of"):
        merge(place, tmp_path / "merged.json", progress=False)
    assert not (tmp_path / "merged.json").exists()


def test_without_pyarrow_nothing_is_begun(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=1)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="shards need pyarrow"):
        label_shards(images, boxes, tiny_model(), tmp_path / "shards", **OPTIONS)
    assert not (tmp_path / "shards").exists()


def test_shards_in_two_passes(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=3)
    model = tiny_model()
    label_shards(images, boxes, model, tmp_path / "shards", shard_pictures=2, second_pass=True, **OPTIONS)
    merge(tmp_path / "shards", tmp_path / "merged.json", progress=False)
    found = by_id(tmp_path / "merged.json")
    assert found == whole(tmp_path, images, boxes, model, second_pass=True)
    with pytest.raises(InputError, match="second pass was True, now not given"):
        label_shards(images, boxes, model, tmp_path / "shards", shard_pictures=2, **OPTIONS)


def test_shards_hold_what_label_writes(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=3)
    document = json.loads(boxes.read_text())
    document["annotations"].append(BAD)
    boxes.write_text(json.dumps(document))
    model = tiny_model()
    done = label_shards(images, boxes, model, tmp_path / "shards", shard_pictures=2, **OPTIONS)
    assert (done.shards, done.total, done.labelled) == (2, 19, 18) and done.skipped == {"unknown image_id": 1}
    merged = merge(tmp_path / "shards", tmp_path / "merged.json", progress=False)
    assert (merged.pictures, merged.total, merged.written) == (3, 19, 18)
    assert by_id(tmp_path / "merged.json") == whole(tmp_path, images, boxes, model)
    first, second = (
        json.loads((tmp_path / "merged.json").read_text()),
        json.loads((tmp_path / "whole.json").read_text()),
    )
    for key in ("images", "categories", "info"):
        assert first[key] == second[key]
    (skipped,) = json.loads((tmp_path / "merged.skipped.json").read_text())
    assert skipped == {"id": 1, "image_id": 99, "reason": "unknown image_id"}
    shard = tmp_path / "shards" / "part-000000.parquet"
    rows = list(read_rows(shard))
    assert list(rows[0]) == schema().names
    assert {row["model_sha256"] for row in rows} == {read_record(shard)["record"]["model_sha256"]}


def test_a_rerun_makes_only_what_is_missing(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=4)
    model, out = tiny_model(), tmp_path / "shards"
    label_shards(images, boxes, model, out, shard_pictures=1, **OPTIONS)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in out.glob("part-*")}
    (out / "part-000002.parquet").unlink()
    with pytest.raises(InputError, match=r"1 of 4 shards are missing \(part-000002\.parquet\)"):
        merge(out, tmp_path / "merged.json", progress=False)
    done = label_shards(images, boxes, model, out, shard_pictures=1, **OPTIONS)
    assert done.before == 3 and done.labelled == 24 and done.boxes == 6
    for file in out.glob("part-*.parquet"):
        assert (file.name == "part-000002.parquet") != (file.stat().st_mtime_ns == before[file.name][1])
    assert len(list(read_rows(out / "part-000002.parquet"))) == 6
    with pytest.raises(InputError, match=r"holds the shards of another run \(flip was False, now True\)"):
        label_shards(images, boxes, model, out, shard_pictures=1, flip=True, **OPTIONS)


def test_half_a_shard_is_named(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    label_shards(images, boxes, tiny_model(), tmp_path / "shards", **OPTIONS)
    shard = tmp_path / "shards" / "part-000000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"shards/part-000000\.parquet: not a whole shard of mal-trt; delete it"):
        merge(tmp_path / "shards", tmp_path / "merged.json", progress=False)
    assert not list(tmp_path.glob("*merged*"))


def test_damage_is_said_where_it_is(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=4)
    model, out = tiny_model(), tmp_path / "shards"
    label_shards(images, boxes, model, out, shard_pictures=1, **OPTIONS)
    (out / "part-000001.run.json").write_bytes(b"")
    assert label_shards(images, boxes, model, out, shard_pictures=1, **OPTIONS).labelled == 24
    shard = out / "part-000002.parquet"
    content = bytearray(shard.read_bytes())
    content[100:900] = bytes(800)  # the pages; what describes them is at the end
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"shards/part-000002\.parquet: not a whole shard of mal-trt; delete it"):
        merge(out, tmp_path / "merged.json", progress=False)
    shard.unlink()
    (slice_,) = out.glob("_slice-000002*")
    slice_.write_bytes(slice_.read_bytes()[:50])
    with pytest.raises(InputError, match=r"_slice-000002\.json\.gz: damaged"):
        label_shards(images, boxes, model, out, shard_pictures=1, **OPTIONS)


def test_ids_that_occur_in_two_shards(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=3)
    document = json.loads(boxes.read_text())
    for place, record in enumerate(document["annotations"]):
        record["id"] = place % 8
    boxes.write_text(json.dumps(document))
    model = tiny_model()
    done = label_shards(images, boxes, model, tmp_path / "shards", shard_pictures=1, **OPTIONS)
    assert done.skipped == {"duplicate id": 10} and done.warning.startswith("WARNING: 10 of 18 boxes have NO mask")
    merge(tmp_path / "shards", tmp_path / "merged.json", progress=False)
    assert by_id(tmp_path / "merged.json") == whole(tmp_path, images, boxes, model)
    assert "mal_trt_repeated" not in (tmp_path / "merged.json").read_text()


def test_pictures_that_are_gone_make_no_empty_shards(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=3)
    model, out, made = tiny_model(), tmp_path / "shards", labeling.write_shard

    def unplugged(*given: Any) -> None:
        made(*given)
        images.rename(tmp_path / "unplugged")

    monkeypatch.setattr(labeling, "write_shard", unplugged)
    with pytest.raises(RunError, match=r"pictures: is gone or empty .*bring it back and run again"):
        label_shards(images, boxes, model, out, shard_pictures=1, **OPTIONS)
    monkeypatch.undo()
    (tmp_path / "unplugged").rename(images)
    done = label_shards(images, boxes, model, out, shard_pictures=1, **OPTIONS)
    assert (done.before, done.labelled) == (1, 18)


def test_a_merge_leaves_no_older_list(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    label_shards(images, boxes, tiny_model(), f"file://{tmp_path / 'shards'}", **OPTIONS)
    listed = tmp_path / "merged.skipped.json"
    listed.write_text('[\n{"id": 1, "image_id": 1, "reason": "bbox missing"}\n]\n')
    assert merge(f"file://{tmp_path / 'shards'}", tmp_path / "merged.json", progress=False).written == 6
    assert not listed.exists()
    assert [Place(place, make=False).out for place in ("/", "", "a/")] == ["/", "", "a"]
    with pytest.raises(InputError, match="for several give --ray"):
        label_shards(images, boxes, tiny_model(), tmp_path / "more", **{**OPTIONS, "device": "cpu,cpu"})


def test_two_runs_into_one_place(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    place = Place(tmp_path / "shards")
    with (
        place.held(),
        pytest.raises(InputError, match=r"another run is writing here \(host .*, process \d+, last sign"),
    ):
        label_shards(images, boxes, tiny_model(), tmp_path / "shards", **OPTIONS)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    with place.held():
        dead = json.loads((tmp_path / "shards" / LOCK).read_text())
    (tmp_path / "shards" / LOCK).write_text(json.dumps({**dead, "process": child}))
    assert label_shards(images, boxes, tiny_model(), tmp_path / "shards", **OPTIONS).labelled == 6, (
        "its process is gone"
    )
    assert not (tmp_path / "shards" / LOCK).exists()
    (tmp_path / "shards" / LOCK).write_text(json.dumps({**dead, "process": os.getpid()}))
    with place.held():
        pass  # as in a container that was started again, where the dead run had this number


def test_other_versions_and_another_model_are_refused(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_versions(labeling.running_versions())
    with pytest.raises(InputError, match=r"has other versions .*\(mal_trt .* here, 9\.9 there\); install the same"):
        check_versions({**labeling.running_versions(), "mal_trt": "9.9"})
    images, boxes = data_set(pictures=1)
    monkeypatch.setattr("mal_trt.labelling.workers.file_sha256", lambda file: "0" * 64)
    with pytest.raises(InputError, match="this is another model"):
        label_shards(images, boxes, tiny_model(), tmp_path / "shards", **OPTIONS)


def test_a_bucket_that_fails_at_times(
    tmp_path: Path, tiny_model: Write, data_set: Write, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=4)
    model = tiny_model()
    expected = whole(tmp_path, images, boxes, model)
    for file in images.iterdir():
        bucket.put(f"pictures/{file.name}", file)
    bucket.put("boxes.json", boxes)
    for method in ("GET", "PUT"):
        bucket.fail(method, "png|parquet", status=500, times=2)
        bucket.fail(method, "png|parquet", status=503, times=2)
    outage = bucket.fail("GET", "000000000003.png", status=500)
    arguments = (f"{bucket.url}/pictures", f"{bucket.url}/boxes.json", model, f"{bucket.url}/out")
    with pytest.raises(RunError, match=r"000000000003\.png: cannot be reached"):
        label_shards(*arguments, shard_pictures=1, **OPTIONS)
    assert [key for key in list(bucket.keys()) if key.endswith("parquet")] == [
        "out/part-000000.parquet",
        "out/part-000001.parquet",
    ]
    assert f"out/{LOCK}" not in set(bucket.keys())
    bucket.faults.remove(outage)
    made: list[int] = []
    original = ShardLabeler.label

    def counted(self: ShardLabeler, number: int) -> Any:
        made.append(number)
        return original(self, number)

    monkeypatch.setattr(ShardLabeler, "label", counted)
    done = label_shards(*arguments, shard_pictures=1, **OPTIONS)
    assert made == [2, 3] and done.labelled == 24
    merge(f"{bucket.url}/out", tmp_path / "merged.json", progress=False)
    assert by_id(tmp_path / "merged.json") == expected


@pytest.mark.parametrize("odd", [{"id": 9, "name": "blob"}, {"id": [1], "name": "list"}])
def test_categories_stay_as_they_are(tmp_path: Path, tiny_model: Write, data_set: Write, odd: dict[str, Any]) -> None:
    images, boxes = data_set(pictures=2)
    document = json.loads(boxes.read_text())
    document["categories"].append(odd)
    if odd["id"] == 9:
        document["annotations"][-1]["category_id"] = 9
    boxes.write_text(json.dumps(document))
    label_shards(images, boxes, tiny_model(), tmp_path / "shards", shard_pictures=1, **OPTIONS)
    merge(tmp_path / "shards", tmp_path / "merged.json", progress=False)
    merged = json.loads((tmp_path / "merged.json").read_text())
    assert merged["categories"] == document["categories"]
    kinds = {record["id"]: record["category_id"] for record in document["annotations"]}
    assert {record["id"]: record["category_id"] for record in merged["annotations"]} == kinds
