"""Files inside folders and archives: order, names, nesting; nothing is written, nothing escapes, bombs are refused."""

import io
import tarfile
import zipfile

import pytest

from jaxtraffic.datasets import documents
from jaxtraffic.errors import DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(members, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read(place, endings=(".txt",)):
    return [(str(found.name), found.stream.read().decode()) for found in documents.documents(place, endings)]


def test_folders_archives_and_archives_within(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.TXT").write_text("2")
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "other.csv").write_text("no")
    (tmp_path / "c.zip").write_bytes(zipped({"z/9.txt": b"9", "z/3.txt": b"3", "in.zip": zipped({"deep.txt": b"d"})}))
    (tmp_path / "d.tar.gz").write_bytes(tarred({"t/4.txt": b"4", "x.bin": b"no"}))
    assert read(tmp_path) == [
        ("a.txt", "1"),
        ("b/two.TXT", "2"),
        ("c/in/deep.txt", "d"),
        ("c/z/3.txt", "3"),
        ("c/z/9.txt", "9"),
        ("d/t/4.txt", "4"),
    ]
    assert read(tmp_path / "other.csv") == [("other.csv", "no")], "a file is its own document"
    where = [found.where for found in documents.documents(tmp_path / "c.zip", (".txt",))]
    assert where[0] == f"{tmp_path / 'c.zip'}!in.zip!deep.txt"


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_no_path_escapes_from_an_archive(tmp_path, pack):
    inside = tmp_path / "in"
    inside.mkdir()
    names = ["../../evil.txt", "/etc/evil.txt", "..\\evil.txt", "C:\\evil.txt", "a/../../evil.txt", ".."]
    ending = ".zip" if pack is zipped else ".tar.gz"
    (inside / f"a{ending}").write_bytes(pack(dict.fromkeys(names, b"x")))
    before = set(tmp_path.rglob("*"))
    found = [found.name for found in documents.documents(inside / f"a{ending}", (".txt",))]
    assert len(found) == 5, "the name .. has no ending"
    assert all(not name.is_absolute() and ".." not in name.parts for name in found)
    assert set(tmp_path.rglob("*")) == before


def test_links_and_devices_in_a_tar_are_no_documents(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("l.txt", tarfile.SYMTYPE), ("h.txt", tarfile.LNKTYPE), ("d.txt", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    assert read(tmp_path / "a.tar") == []


def test_bombs_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped({"a.txt": bytes(8 << 20)}))
    monkeypatch.setattr(documents, "MAX_EXPANSION", 100)
    with pytest.raises(DataError, match=r"a\.zip!a\.txt: expands beyond measure"):
        read(tmp_path / "a.zip")
    nested = {"a.txt": b"x"}
    for _ in range(5):
        nested = {"n.zip": zipped(nested)}
    (tmp_path / "n.zip").write_bytes(zipped(nested))
    with pytest.raises(DataError, match="nested more than 3 deep"):
        read(tmp_path / "n.zip")


def test_unreadable_damaged_and_encrypted(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read(tmp_path / "none.txt")
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="damaged archive"):
        read(tmp_path / "a.zip")
    data = bytearray(zipped({"a.txt": b"x" * 100}))
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        read(tmp_path / "a.zip")


def survive(tmp_path, ending, data, n):
    refused = 0
    for copy in mutated_copies(data, n, seed=3):
        path = tmp_path / f"m{ending}"
        path.write_bytes(copy)
        try:
            for found in documents.documents(path, (".txt",)):
                found.stream.read()
        except JaxTrafficError:
            refused += 1
    assert refused > n / 10
    assert [path.name for path in tmp_path.iterdir()] == [f"m{ending}"]


MEMBERS = {"a.txt": b"abc" * 400, "b/c.txt": b"defg" * 100}


@pytest.mark.parametrize("n", [60, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("ending", "data"),
    [
        (".zip", zipped(MEMBERS | {"in.zip": zipped(MEMBERS)})),
        (".tar.gz", tarred(MEMBERS)),
        (".tar", tarred(MEMBERS, "w")),
    ],
    ids=["zip", "tar.gz", "tar"],
)
def test_damaged_archives_end_in_errors_of_ours(tmp_path, ending, data, n):
    survive(tmp_path, ending, data, n)
