"""A Ray cluster of three nodes, one of which dies in mid-run, as one process does: every box once, the same masks."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

from box_files import png
from mal_trt.base.errors import InputError
from mal_trt.distributed import label_dataset, label_shards, merge
from mal_trt.distributed.shard_file import read_record

Write = Callable[..., Any]
OPTIONS: dict[str, Any] = {"batch": 4, "device": "cpu", "threads": 1, "progress": False}
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    """The node of the driver, without room for an actor, and two with one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    nodes = [made.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def actors() -> list[int]:
    """Processes of actors that have a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            parent = (folder / "stat").read_text().split()[3]
        except OSError:
            continue
        if title.startswith(b"ray::") and b"_Actor" in title and parent:
            found.append(int(folder.name))
    return found


def test_a_node_and_an_actor_die(tmp_path: Path, tiny_model: Write, data_set: Write, cluster: Any) -> None:
    images, boxes = data_set(pictures=24)
    model = tiny_model()
    straight = label_shards(images, boxes, model, tmp_path / "straight", shard_pictures=2, **OPTIONS)
    merge(tmp_path / "straight", tmp_path / "straight.json", progress=False)
    out, (made, nodes), killed = tmp_path / "shards", cluster, []

    def kill() -> None:
        while len(list(out.glob("part-*.parquet"))) < 2:
            time.sleep(0.02)
        for process in actors()[:1]:
            os.kill(process, signal.SIGKILL)
            killed.append(process)
        while len(list(out.glob("part-*.parquet"))) < 4:
            time.sleep(0.02)
        made.remove_node(nodes[1], allow_graceful=False)
        killed.append(0)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    done = label_shards(images, boxes, model, out, shard_pictures=2, ray="auto", workers=2, **OPTIONS)
    thread.join(30)
    assert len(killed) == 2, "an actor and a node"
    assert (done.shards, done.labelled, done.total) == (12, straight.labelled, straight.total) and done.labelled == 144
    merge(out, tmp_path / "merged.json", progress=False)
    assert (tmp_path / "merged.json").read_bytes() == (tmp_path / "straight.json").read_bytes()
    assert not [file.name for file in out.iterdir() if file.name.startswith(".") or file.name == "_running.json"]
    record = read_record(out / "part-000000.parquet")["record"]
    assert record["of"] == 12 and record["labelled"] == 12

    from mal_trt.distributed import ray_run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_run, "running_versions", lambda: {"mal_trt": "9.9"})
        with pytest.raises(InputError, match=r"other versions than the machine that started the run \(mal_trt"):
            label_shards(images, boxes, model, tmp_path / "skew", ray="auto", workers=1, **OPTIONS)


def test_rows_of_a_dataset(tmp_path: Path, tiny_model: Write, data_set: Write, cluster: Any) -> None:
    import ray

    images, boxes = data_set(pictures=3)
    document = json.loads(boxes.read_text())
    rows = []
    for image in document["images"]:
        bbox = [[float(v) for v in r["bbox"]] for r in document["annotations"] if r["image_id"] == image["id"]]
        rows.append({"image": (images / image["file_name"]).read_bytes(), "boxes": bbox, "key": image["id"]})
    rows.append({"image": b"no picture", "boxes": [[0.0, 0.0, 5.0, 5.0]], "key": 9})
    model = tiny_model()
    found = label_dataset(ray.data.from_items(rows), model, device="cpu", rows=2, workers=1)
    by_key = {row["key"]: row for row in found.take_all()}
    label_shards(images, boxes, model, tmp_path / "shards", **OPTIONS)
    merge(tmp_path / "shards", tmp_path / "merged.json", progress=False)
    records = json.loads((tmp_path / "merged.json").read_text())["annotations"]
    for key in (1, 2, 3):
        expected = [r["segmentation"]["counts"] for r in records if r["image_id"] == key]
        assert list(by_key[key]["mask_counts"]) == expected and by_key[key]["problem"] is None
        assert (by_key[key]["mask_width"], by_key[key]["mask_height"]) == (120, 80)
    assert by_key[9]["mask_counts"] is None and "not a picture" in by_key[9]["problem"]
    with pytest.raises(InputError, match="no column 'bbox'"):
        label_dataset(ray.data.from_items([{"image": png(8, 8)}]), model, boxes="bbox")
