from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
import uuid
from pathlib import Path

import boto3
import pytest

from cluster.storage.folder import Folder, open_folder, split_object
from cluster.storage.storage_check import race
from freqgan.errors import FreqganError, InputError, RunError
from tests.support.s3_server import BUCKET


@pytest.fixture
def bucket_folder(s3_server: str) -> Folder:
    return open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process that has these AWS variables and no others, nor a home folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    root = str(Path(__file__).parents[3])
    environment = {**kept, "HOME": "/nonexistent", "PYTHONPATH": root, "AWS_EC2_METADATA_DISABLED": "true", **variables}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_what_is_written_is_read(folder: Folder) -> None:
    folder.write("a/b.bin", b"first")
    folder.write("a/b.bin", b"second one")
    assert folder.read("a/b.bin") == folder.child("a").read("b.bin") == b"second one"
    assert folder.size("a/b.bin") == 10
    with folder.open("a/b.bin") as file:
        file.seek(7)
        assert file.read() == b"one"


def test_listings(folder: Folder) -> None:
    assert folder.list() == folder.files() == folder.subfolders() == []
    for name in ("b.txt", "a/2.txt", "a/1.txt", "a/deep/3.txt", "ab/4.txt"):
        folder.write(name, b"x")
    assert folder.list() == ["a/1.txt", "a/2.txt", "a/deep/3.txt", "ab/4.txt", "b.txt"]
    assert folder.list("a") == ["a/1.txt", "a/2.txt", "a/deep/3.txt", "ab/4.txt"]
    assert folder.list("a/d") == ["a/deep/3.txt"]
    assert folder.child("a").list() == ["1.txt", "2.txt", "deep/3.txt"]
    assert folder.files() == ["b.txt"]
    assert folder.subfolders() == ["a", "ab"]
    assert folder.child("b.txt").list() == []


def test_exists_is_about_objects(folder: Folder) -> None:
    folder.write("a/b.txt", b"x")
    assert folder.exists("a/b.txt")
    assert not folder.exists("a")
    assert not folder.exists("a/c.txt")
    assert not folder.exists("a/b.txt/c")


def test_delete(folder: Folder) -> None:
    folder.write("a/b.txt", b"x")
    folder.write("c.txt", b"x")
    folder.delete("a/b.txt")
    folder.delete("a/b.txt")
    assert folder.list() == ["c.txt"]
    folder.write("a/d.txt", b"x")
    folder.child("a").delete_tree()
    folder.child("a").delete_tree()
    assert folder.list() == ["c.txt"]


def test_rename_replaces(folder: Folder) -> None:
    folder.write("tmp/new", b"new")
    folder.write("old", b"old")
    folder.rename("tmp/new", "old")
    assert folder.list() == ["old"]
    assert folder.read("old") == b"new"


def test_upload_and_download(folder: Folder, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "from.bin").write_bytes(content)
    folder.upload(tmp_path / "from.bin", "x/object")
    folder.download("x/object", tmp_path / "to" / "copy.bin")
    assert (tmp_path / "to" / "copy.bin").read_bytes() == content
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["copy.bin"]


def test_a_failed_download_leaves_nothing(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot download .*/missing: no such"):
        folder.download("missing", tmp_path / "to" / "copy.bin")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("call", ["read", "size"])
def test_a_missing_object_is_named(folder: Folder, call: str) -> None:
    with pytest.raises(InputError, match=f"{folder.url}/a/missing: no such"):
        getattr(folder, call)("a/missing")
    with pytest.raises(InputError, match=f"{folder.url}/a/missing: no such"), folder.open("a/missing"):
        pass


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a\0b"])
def test_names_stay_inside(folder: Folder, name: str) -> None:
    for use in (folder.read, folder.delete, folder.child):
        with pytest.raises(InputError, match="is not a name inside"):
            use(name)


def test_check_writable_leaves_nothing(folder: Folder) -> None:
    folder.check_writable()
    assert folder.list() == []


def test_check_writable_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    open_folder(str(tmp_path / "kept" / "a" / "b")).check_writable()
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_a_file_in_the_way_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot write to .*/file/x: a part of the path is a file.*; name another"):
        open_folder(str(tmp_path / "file" / "x")).check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot write to .*: permission denied; give this user access"):
        open_folder(str(tmp_path)).check_writable()
    tmp_path.chmod(0o700)


def test_readers_never_see_a_part_of_a_write(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    contents = [bytes([number]) * 300_000 for number in range(8)]
    folder.write("object", contents[0])
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(folder.read("object"))

    reader = threading.Thread(target=watch)
    reader.start()
    for content in contents * 5:
        folder.write("object", content)
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["object"]


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".model.bin.1a2b3c4d.part").write_bytes(b"half")
    (tmp_path / "model.bin").write_bytes(b"whole")
    assert open_folder(str(tmp_path)).list() == open_folder(str(tmp_path)).files() == ["model.bin"]


def test_open_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_folder("x/../y").url == open_folder("~/y").url == str(tmp_path / "y")
    assert open_folder("s3://b//x/y/").url == "s3://b/x/y"
    assert open_folder("x").is_local
    assert not open_folder("s3://b").is_local
    for url, message in {
        "": "names no folder",
        "s3://": "names no bucket",
        "gs://b/x": "gs:// is not supported",
        "s3://key:secret@b/x": "credentials do not belong",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            open_folder(url)
        assert "secret" not in str(caught.value)


def test_split_object(tmp_path: Path) -> None:
    folder, name = split_object("s3://b/x/y.tar")
    assert (folder.url, name) == ("s3://b/x", "y.tar")
    folder, name = split_object("s3://b/y.tar")
    assert (folder.url, name) == ("s3://b", "y.tar")
    folder, name = split_object(f"{tmp_path}/y.tar")
    assert (folder.url, name) == (str(tmp_path), "y.tar")
    with pytest.raises(InputError, match="names no object"):
        split_object("s3://b")


def test_a_missing_bucket_is_named_by_every_call(s3_server: str) -> None:
    folder = open_folder("s3://no-such-bucket/x")
    for call in (folder.list, folder.files, folder.subfolders, folder.check_writable, folder.delete_tree):
        with pytest.raises(InputError, match=f"bucket no-such-bucket does not exist at {s3_server}; create it"):
            call()
    for use in (folder.read, folder.exists, folder.size):
        with pytest.raises(InputError, match=r"s3://no-such-bucket/x/y: bucket no-such-bucket does not exist"):
            use("y")
    with pytest.raises(InputError, match="cannot write to s3://no-such-bucket/x: bucket no-such-bucket does not"):
        folder.check_writable()


def test_an_impossible_bucket_name(s3_server: str) -> None:
    with pytest.raises(InputError, match="'No_Such!' cannot be a bucket's name"):
        open_folder("s3://No_Such!/x").read("y")


def test_refused_access_is_named(s3_server: str, bucket_folder: Folder) -> None:
    def check_keys_after(count: str) -> None:
        url, headers = f"{s3_server}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, data=count.encode(), headers=headers)).close()

    check_keys_after("0")
    try:
        for call in (bucket_folder.check_writable, bucket_folder.list, lambda: bucket_folder.read("x")):
            with pytest.raises(InputError, match=rf"access to bucket {BUCKET} is denied .*check AWS_ACCESS_KEY_ID"):
                call()
    finally:
        check_keys_after("inf")


def test_missing_credentials_are_asked_for(s3_server: str) -> None:
    code = "from cluster.storage.folder import open_folder; open_folder('s3://some-bucket/x').check_writable()"
    done = run_python(code, AWS_ENDPOINT_URL=s3_server)
    wanted = "cannot write to s3://some-bucket/x: no credentials for bucket some-bucket; set AWS_ACCESS_KEY_ID"
    assert done.returncode == 1
    assert f"InputError: {wanted}" in done.stderr


def test_storage_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, s3_server: str) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"/x: http://127.0.0.1:9 does not answer; check AWS_ENDPOINT_URL"):
        open_folder(f"s3://{BUCKET}").read("x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:9")
    with pytest.raises(RunError, match=r"/x: .*storage at http://127.0.0.1:9 gave up") as caught:
        open_folder(f"s3://{BUCKET}").read("x")
    assert "secret" not in str(caught.value)


def test_a_forked_process_and_a_running_event_loop(s3_server: str, bucket_folder: Folder) -> None:
    code = f"""
import asyncio, os
from cluster.storage.folder import open_folder
folder = open_folder({bucket_folder.url!r})
folder.write("parent", b"1")
child = os.fork()
if child == 0:
    folder.write("child", folder.read("parent") + b"2")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
async def in_an_actor():
    return folder.read("child")
assert asyncio.run(in_an_actor()) == b"12"
"""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    done = run_python(code, **{name: os.environ[name] for name in names})
    assert (done.returncode, done.stderr) == (0, "")
    assert bucket_folder.list() == ["child", "parent"]


def test_threads_share_a_folder(bucket_folder: Folder) -> None:
    errors: list[FreqganError] = []

    def use(number: int) -> None:
        try:
            bucket_folder.write(f"{number}", bytes([number]))
            assert bucket_folder.read(f"{number}") == bytes([number])
        except FreqganError as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert bucket_folder.list() == ["0", "1", "2", "3"]


def test_a_conditional_write_has_one_winner(folder: Folder) -> None:
    assert folder.read_tagged("a/lease") is None
    first = folder.write_if("a/lease", b"one", None)
    assert first is not None
    assert folder.read_tagged("a/lease") == (b"one", first)
    assert folder.write_if("a/lease", b"two", None) is None
    second = folder.write_if("a/lease", b"two", first)
    assert second not in (None, first)
    assert folder.write_if("a/lease", b"three", first) is None
    assert folder.read("a/lease") == b"two"
    folder.delete("a/lease")
    assert folder.write_if("a/lease", b"four", second) is None
    assert folder.list() == []


def test_of_many_conditional_writers_one_wins_each_round(folder: Folder) -> None:
    tag: str | None = None
    for number in range(3):
        won = race(folder, "lease", tag, number, writers=6)
        assert len(won) == 1
        tag = won[0]


def test_looking_whether_a_folder_can_be_written_to_does_not_make_it(tmp_path: Path) -> None:
    open_folder(str(tmp_path / "new")).check_writable()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    open_folder(str(tmp_path / "old")).check_writable()
    assert list((tmp_path / "old").iterdir()) == []


def test_links_are_what_they_lead_to(tmp_path: Path) -> None:
    real, linked = tmp_path / "real", tmp_path / "linked"
    (real / "deep").mkdir(parents=True)
    (real / "a.tar").write_bytes(b"a")
    linked.mkdir()
    (linked / "b.tar").symlink_to(real / "a.tar")
    (linked / "below").symlink_to(real)
    (linked / "gone").symlink_to(tmp_path / "nowhere")
    folder = open_folder(str(linked))
    assert (folder.files(), folder.subfolders()) == (["b.tar"], ["below"])
    assert folder.read("b.tar") == b"a"
    assert open_folder(str(real / "a.tar")).files() == []


def test_names_are_no_patterns(folder: Folder) -> None:
    for name in ("run1/a", "run[12]/a", "run*/a", "run?/a", "run{1,2}/a"):
        folder.write(name, name.encode())
    for top in ("run[12]", "run*", "run?", "run{1,2}"):
        assert folder.child(top).list() == ["a"]
        assert folder.child(top).read("a") == f"{top}/a".encode()
        folder.child(top).rename("a", "b[0]")
        assert folder.child(top).files() == ["b[0]"]
        folder.child(top).delete_tree()
    assert folder.list() == ["run1/a"]


def test_uploads_that_nobody_ends_are_aborted_once_they_are_old(bucket_folder: Folder, s3_server: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    prefix = bucket_folder.url.removeprefix(f"s3://{BUCKET}/")
    for key in (f"{prefix}/a", f"{prefix}/deep/b", f"{prefix}-other/a"):
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"part")

    def uploads() -> set[str]:
        found = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", ())
        return {one["Key"].removeprefix(prefix) for one in found}

    bucket_folder.abort_uploads(1e9)  # moto says of every upload that it was begun in 2010
    assert uploads() == {"/a", "/deep/b", "-other/a"}
    bucket_folder.abort_uploads(3600)
    assert uploads() == {"-other/a"}
