"""Pictures and boxes at URLs: found, read, tried again, and told apart when they cannot be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fsspec")

from box_files import BOXES, coco, csv_pixels, png, voc, webdataset
from bucket import Bucket
from mal_trt.base import remote
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.places import places
from mal_trt.base.remote import Store
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import ImageProblem, open_images

Writer = Callable[[Path], Path]


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's store in memory, empty."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def put(files: Any, folder: Path, url: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            files.pipe_file(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def test_pictures_below_a_url(memory: Any) -> None:
    for name in ("a.png", "train/b.png", "notes.txt"):
        memory.pipe_file(f"/data/{name}", png(8, 6))
    source = open_images("memory://data")
    assert source.load("a.png").shape == (6, 8, 3)
    assert source.find("B.PNG") == "train/b.png" and source.renamed == {"B.PNG": "train/b.png"}
    assert source.find("memory://data/train/b.png") == "train/b.png"
    assert source.size("a.png") == (8, 6) and source.count() == 2
    with pytest.raises(ImageProblem, match="picture missing"):
        source.load("c.png")
    assert open_images("memory://data/a.png").load("a.png").shape == (6, 8, 3)


@pytest.mark.parametrize("writer", [coco, csv_pixels, voc, webdataset])
def test_boxes_at_a_url_are_those_on_the_disk(tmp_path: Path, memory: Any, writer: Writer) -> None:
    path = writer(tmp_path / "labels")
    for name in ("a.png", "b.png"):
        (tmp_path / "labels" / name).write_bytes(png(80, 60))
    put(memory, tmp_path / "labels", "/labels")
    here, there = Boxes(path), Boxes(f"memory://labels/{path.relative_to(tmp_path / 'labels').as_posix()}".rstrip("/."))
    source = open_images(tmp_path / "labels")
    assert there.document(source) == here.document(source)
    assert there.sha256() == here.sha256()
    home = open_images(there.home())
    assert home.load(home.find("a.png")).shape == (60, 80, 3)


def test_messages_name_the_url(memory: Any) -> None:
    memory.pipe_file("/x/boxes.json", b'{"images": [}')
    with pytest.raises(InputError, match=r"^memory://x/boxes\.json: not valid JSON at character"):
        list(Boxes("memory://x/boxes.json").entries(open_images("memory://x")))
    with pytest.raises(InputError, match=r"^memory://x/none\.json: no such file"):
        Boxes("memory://x/none.json")
    with pytest.raises(InputError, match=r"^memory://nowhere: no such bucket, folder or file"):
        open_images("memory://nowhere")


def test_pictures_are_looked_for_on_their_own_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Bare:
        def __init__(self, url: str) -> None:
            self.url = url

        def fetch(self, name: str, file: Path) -> None:
            file.write_text("filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,30,40\n")

        def is_file(self, name: str) -> bool:
            asked.append(f"{self.url}/{name}")
            return False

    monkeypatch.setattr("mal_trt.formats.box_copies.Store", Bare)
    for url in ("https://host/b.csv", "https://host/deep/b.csv"):
        with pytest.raises(InputError, match="does not say where its pictures are"):
            Boxes(url).home()
    assert set(asked) == {f"https://host/{place}a.png" for place in ("", "images/", "deep/", "deep/images/")}


def test_pictures_whose_names_are_urls(tmp_path: Path, memory: Any) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name in ("a.png", "b.png"):
        memory.pipe_file(f"/two/{name}", png(80, 60))
    names = [f"memory://two/{name}" for name, _, _ in BOXES]
    table = {"image_uri": names, "bbox": [[1.0, 2.0, 3.0, 4.0]] * 3, "label": ["cat"] * 3}
    pq.write_table(pa.table(table), tmp_path / "boxes.parquet")
    boxes = Boxes(tmp_path / "boxes.parquet")
    source = open_images(boxes.home())
    document = boxes.document(source)
    assert [image["width"] for image in document["images"]] == [80, 80]
    assert source.load(document["images"][1]["file_name"], (80, 60)).shape == (60, 80, 3)


def test_pictures_in_parquet_with_their_boxes(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": png(20 + n, 10), "path": name} for n, name in enumerate(["x/1.png", None, "3.png"])]
    objects = [{"bbox": [[0.0, 1.0, 5.0, 6.0]] * n, "category": list(range(n))} for n in (1, 2, 0)]
    lists = pa.struct({"bbox": pa.list_(pa.list_(pa.float64())), "category": pa.list_(pa.int64())})
    kinds = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "objects": lists})
    for part in range(2):
        columns = {"image": pictures[part * 2 :][:2], "objects": objects[part * 2 :][:2]}
        pq.write_table(pa.table(columns, kinds), tmp_path / f"part-{part}.parquet", row_group_size=1)
    boxes = Boxes(tmp_path / "part-{0..1}.parquet")
    source = open_images(boxes.home())
    document = boxes.document(source)
    assert [i["file_name"] for i in document["images"]] == ["x/1.png", "part-0/00000001", "3.png"]
    assert [i["width"] for i in document["images"]] == [20, 21, 22]
    assert [a["image_id"] for a in document["annotations"]] == [1, 2, 2]
    assert source.load("part-0/00000001").shape == (10, 21, 3)


def test_shards_of_a_web_dataset(tmp_path: Path) -> None:
    for number in (9, 10):
        webdataset(tmp_path / "made").rename(tmp_path / f"shard-{number:04d}.tar")
    boxes = Boxes(tmp_path / "shard-{0009..0010}.tar")
    source = open_images(boxes.home())
    document = boxes.document(source)
    names = ["shard-0009/a.png", "shard-0009/b.png", "shard-0010/a.png", "shard-0010/b.png"]
    assert [i["file_name"] for i in document["images"]] == names
    assert len(document["annotations"]) == 6 and source.load(names[3]).shape == (60, 80, 3)
    whole = (tmp_path / "shard-0010.tar").read_bytes()
    (tmp_path / "shard-0010.tar").write_bytes(whole[:1500])
    with pytest.raises(InputError, match=r"shard-0010\.tar: not a .*tar file"):
        boxes.document(source)


def test_patterns(tmp_path: Path) -> None:
    assert places("s3://b/p-{08..10}-{a,b}.tar")[:3] == ["s3://b/p-08-a.tar", "s3://b/p-08-b.tar", "s3://b/p-09-a.tar"]
    (tmp_path / "odd{1..2}.tar").touch()
    assert places(tmp_path / "odd{1..2}.tar") == [str(tmp_path / "odd{1..2}.tar")], "a file that is there is itself"
    with pytest.raises(InputError, match="no file is called so"):
        places(tmp_path / "none-*.tar")
    with pytest.raises(InputError, match="should count up"):
        places("p-{9..1}.tar")


def test_s3_what_passes_is_tried_again(bucket: Bucket) -> None:
    bucket.put("a.png", png(8, 6))
    fault = bucket.fail("GET", "a.png", status=500, times=2)
    slow = bucket.fail("GET", "a.png", status=503, times=2)
    assert open_images(bucket.url).load("a.png").shape == (6, 8, 3)
    assert (fault.seen, slow.seen) == (2, 2)
    assert sum(method == "GET" and path.endswith("a.png") for method, path in bucket.asked) == 5


def test_s3_timeouts_are_tried_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a.png", png(8, 6))
    quick = {"max_concurrency": 1, "config_kwargs": {"retries": {"total_max_attempts": 1}, "read_timeout": 0.5}}
    monkeypatch.setattr(remote, "_options", lambda scheme: quick)
    fault = bucket.fail("GET", "a.png", times=1, wait=2.0)
    assert open_images(bucket.url).load("a.png").shape == (6, 8, 3)
    assert fault.seen == 1


def test_s3_waits_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    assert list(remote.waits()) == [0.5, 1, 2, 4, 8]


def test_s3_what_stays_ends_the_run(bucket: Bucket) -> None:
    bucket.put("a.png", png(8, 6))
    source = open_images(bucket.url)
    bucket.fail("GET", "a.png", status=500)
    with pytest.raises(RunError, match=r"a\.png: cannot be reached \(.*\), tried 6 times; .*--resume"):
        source.load("a.png")


def test_s3_gone_between_listing_and_reading(bucket: Bucket) -> None:
    bucket.put("a.png", png(8, 6))
    source = open_images(bucket.url)
    assert source.find("a.png") == "a.png"
    bucket.client.delete_object(Bucket=bucket.url.removeprefix("s3://"), Key="a.png")
    with pytest.raises(ImageProblem, match=r"picture missing \(a\.png: was there when names were listed, and is gone"):
        source.load("a.png")


def test_s3_denied_and_unknown(bucket: Bucket) -> None:
    bucket.put("a.png", png(8, 6))
    source = open_images(bucket.url)
    bucket.fail("GET", "a.png", status=403)
    with pytest.raises(ImageProblem, match="picture cannot be read"):
        source.load("a.png")
    with pytest.raises(InputError, match="no such bucket, folder or file"):
        open_images("s3://bucket-that-is-not-there")
    bucket.fail("GET", "/$|^/bucket-\\d+$", status=403)
    bucket.fail("HEAD", "", status=403)
    with pytest.raises(InputError, match="access denied; check the credentials"):
        open_images(f"{bucket.url}/folder")


def test_s3_wrong_region(bucket: Bucket) -> None:
    bucket.fail("GET", "", status=400)
    bucket.fail("HEAD", "", status=400)
    with pytest.raises(InputError, match=r"the bucket is in another region, .*AWS_DEFAULT_REGION"):
        Store(bucket.url).read("a.png")


def test_s3_unreachable(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(RunError, match="cannot be reached"):
        open_images("s3://somewhere/pictures")
    assert time.monotonic() - began < 30


def test_a_file_is_sent_once(bucket: Bucket, tmp_path: Path) -> None:
    store = Store(bucket.url)
    bucket.fail("PUT", "new", status=503, times=1)
    store.put("new", b"1", new=True)
    with pytest.raises(FileExistsError):
        store.put("new", b"2", new=True)
    (tmp_path / "f").write_bytes(np.arange(10, dtype=np.uint8).tobytes())
    store.send(tmp_path / "f", "sub/f")
    assert bucket.get("new") == b"1" and store.names() == ["new", "sub/f"]
    store.fetch("sub/f", tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()
