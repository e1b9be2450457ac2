"""UCDAVIS19: every row a packet, against a plain loop; signs, times, layouts and every refusal."""

import hashlib
import zipfile
from collections import Counter

import numpy as np
import pytest

from jaxtraffic.datasets import ucdavis
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated.ucdavis import CLASSES, FOLDERS, simulate, simulated_partitions
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies

# the rows of the reference (tcbench, install guide), literally
SAMPLE = (
    "1527987720.404560000\t0\t295\t1\n1527987720.422811000\t0.0182509\t87\t0\n1527987721.049666000\t0.645106\t301\t0\n"
    "1527987721.050904000\t0.646344\t1412\t0\n"
)
WHOLE = ReadOptions(length=1_000)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root") / "ucdavis19"
    simulate(folder, 200, 3)
    return folder


def write(folder, text=SAMPLE, *, partition="pretraining", label="Google Doc", name="GoogleDoc-1000.txt"):
    path = folder / FOLDERS[partition] / label / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read_one(path, options=WHOLE):
    (block,) = ucdavis.read(path, options)
    return block


def flows_of(blocks):
    """Flow by flow: (label, partition, capture, start, sizes with signs)."""
    for block in blocks:
        ends = np.cumsum(block.packets.counts)
        signed = block.packets.size.astype(int) * block.packets.direction
        for flow, end in enumerate(ends):
            facts = block.facts.row(flow, named=True)
            part = slice(end - block.packets.counts[flow], end)
            yield block.label[flow], facts["partition"], facts["capture"], facts["start"], tuple(signed[part].tolist())


def test_round_trip_equals_a_plain_loop(simulated):
    sources = ucdavis.find(simulated)
    assert sources == sorted(path for path in simulated.glob("*/*") if path.is_dir())
    n_flows = 0
    for folder in sources:
        block = read_one(folder)
        paths = sorted(folder.glob("*.txt"))
        n_flows += len(paths)
        assert block.size_layer == "payload"
        assert set(block.label) == {folder.name}
        expected = {name: [] for name in ("count", "size", "direction", "iat", "start")}
        for path in paths:
            rows = [line.split("\t") for line in path.read_text().splitlines()]
            expected["count"].append(len(rows))
            expected["start"].append(float(rows[0][0]))
            for before, row in zip([rows[0], *rows], rows):
                expected["iat"].append(float(row[0]) - float(before[0]))
                expected["size"].append(int(row[2]))
                expected["direction"].append(1 if row[3] == "1" else -1)
        for name in ("size", "direction", "iat"):
            np.testing.assert_array_equal(getattr(block.packets, name), expected[name])
        assert block.packets.counts.tolist() == block.facts["packets"].to_list() == expected["count"]
        assert block.facts["start"].to_list() == expected["start"]
    assert n_flows == 200


def test_round_trip_equals_the_simulated_traffic(simulated):
    written, starts = Counter(), []
    for partition, traffics in simulated_partitions(200, 3):
        for traffic in traffics:
            ends = np.cumsum(traffic.counts)
            for flow, end in enumerate(ends):
                part = slice(end - traffic.counts[flow], end)
                signed = (traffic.payload * traffic.direction)[part]
                written[(CLASSES[traffic.app[flow]], partition, *signed.tolist())] += 1
                starts.append(traffic.time[part][0] / 1e9)
    flows = list(flows_of(block for source in ucdavis.find(simulated) for block in ucdavis.read(source, WHOLE)))
    assert Counter((label, partition, *signed) for label, partition, _, _, signed in flows) == written
    assert sorted(start for *_, start, _ in flows) == pytest.approx(sorted(starts), abs=1e-6)
    assert {partition for _, partition, *_ in flows} == {"pretraining", "human", "script"}


def test_trap_2_ucdavis_direction_1_is_upload_and_plus_one(tmp_path):
    assert read_one(write(tmp_path)).packets.direction.tolist() == [1, -1, -1, -1]


def test_trap_3_ucdavis_epoch_times_are_float64(tmp_path):
    block = read_one(write(tmp_path))
    assert block.facts["start"].to_numpy().dtype == np.float64
    assert block.facts["start"].to_list() == [1527987720.40456]
    # float32 has a spacing of 128 s here, and would give 0 everywhere
    np.testing.assert_allclose(block.packets.iat, [0, 0.018251, 0.626855, 0.001238], atol=5e-7)


def test_trap_4_ucdavis_the_first_packet_is_not_taken_for_a_header(tmp_path):
    block = read_one(write(tmp_path))
    assert block.packets.size.tolist() == [295, 87, 301, 1412]
    assert block.facts["packets"].to_list() == [4]
    assert read_one(write(tmp_path, SAMPLE.splitlines()[0])).packets.size.tolist() == [295]


def test_trap_10_ucdavis_size_0_and_iat_0_in_the_middle_survive(tmp_path):
    text = "5.0\t0\t9\t1\n5.0\t0\t0\t0\n5.0\t0\t0\t1\n6.5\t1.5\t7\t0\n"
    packets = read_one(write(tmp_path, text)).packets
    assert packets.counts.tolist() == [4]
    assert packets.size.tolist() == [9, 0, 0, 7]
    assert packets.direction.tolist() == [1, -1, 1, -1]
    assert packets.iat.tolist() == [0, 0, 0, 1.5]


def test_flows_are_cut_and_packets_counted_before(tmp_path):
    block = read_one(write(tmp_path), ReadOptions(length=2))
    assert (block.packets.size.tolist(), block.facts["packets"].to_list()) == ([295, 87], [4])


def test_packets_out_of_order_are_put_in_order_and_counted(tmp_path):
    write(tmp_path, "9.0\t0\t1\t1\n", name="a.txt")
    path = write(tmp_path, "5.0\t0\t1\t1\n7.0\t2\t3\t0\n6.0\t1\t2\t0\n", name="b.txt")
    block = read_one(path.parent)
    assert block.packets.size.tolist() == [1, 1, 2, 3]
    assert block.packets.iat.tolist() == [0, 0, 1, 1]
    assert block.dropped == {ucdavis.DISORDER: 1}


def test_windows_line_ends_and_a_missing_last_one(tmp_path):
    expected = read_one(write(tmp_path)).packets
    for text in (SAMPLE.replace("\n", "\r\n"), SAMPLE.rstrip("\n"), SAMPLE + "\n\n"):
        packets = read_one(write(tmp_path, text)).packets
        np.testing.assert_array_equal(packets.size, expected.size)
        np.testing.assert_array_equal(packets.iat, expected.iat)


@pytest.mark.parametrize(
    ("text", "row", "field"),
    [
        ("1.0\t0\t5\t1\n2.0\t1\t5\t2\n", 2, "direction"),
        ("1.0\t0\t5\t1\n2.0\t1\t5\t-1\n", 2, "direction"),
        ("1.0\t0\t5\t1\n2.0\t1\t40000\t1\n", 2, "size"),
        ("1.0\t0\t-5\t1\n", 1, "size"),
        ("1.0\t0\t5.5\t1\n", 1, "size"),
        ("1.0\t0\t\t1\n", 1, "size"),
        ("nan\t0\t5\t1\n", 1, "time"),
        ("1.0\t0\t5\t1\n1e30\t0\t5\t1\n", 2, "time"),
        ("1.0\tx\t5\t1\n", 1, "relative time"),
        ("time\trelative\tsize\tdirection\n1.0\t0\t5\t1\n", 1, "time"),
        ("1.0\t0\t5\t1\n2.0\t1\t5\n", 2, None),
        ("1.0\t0\t5\t1\n2.0\t1\t5\t1\t\n", 2, None),
        ("1.0\t0\t5\t1\n\n2.0\t1\t5\t1\n", 2, None),
        ("1.0,0,5,1\n", 1, None),
        ('"1.0\t0\t5\t1\n2.0"\t1\t5\t1\n', 1, "time"),
        (b"1.0\t0\t5\t1\n\xff\t0\t5\t1\n", 2, None),
    ],
)
def test_wrong_rows_name_file_row_and_field(tmp_path, text, row, field):
    write(tmp_path, name="GoogleDoc-0.txt")
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_one(path.parent)
    assert (caught.value.path, caught.value.row, caught.value.field) == (str(path), row, field)


def test_truncated_and_empty_files_and_folders_are_refused(tmp_path):
    path = write(tmp_path, SAMPLE[:-8])
    with pytest.raises(DataError, match="GoogleDoc-1000"):
        read_one(path.parent)
    for text in ("", "\n\n"):
        with pytest.raises(DataError, match="empty file"):
            read_one(write(tmp_path, text).parent)
    path.unlink()
    with pytest.raises(DataError, match="no flow"):
        list(ucdavis.read(path.parent, ReadOptions()))


@pytest.mark.parametrize(("name", "value"), [("BLOCK_BYTES", 2_000), ("BLOCK_FILES", 3)])
def test_blocks_make_no_difference(simulated, monkeypatch, name, value):
    source = max(ucdavis.find(simulated), key=lambda folder: len(list(folder.iterdir())))
    whole = list(flows_of(ucdavis.read(source, WHOLE)))
    monkeypatch.setattr(ucdavis, name, value)
    blocks = list(ucdavis.read(source, WHOLE))
    assert len(blocks) > 5
    assert list(flows_of(blocks)) == whole


def test_zips_as_downloaded_give_the_same_flows(simulated, tmp_path):
    simulate(tmp_path, 200, 3, packed=True)
    zips = ucdavis.find(tmp_path)
    assert [path.name for path in zips] == sorted(f"{folder}.zip" for folder in FOLDERS.values())
    packed = sorted(flow for path in zips for flow in flows_of(ucdavis.read(path, WHOLE)))
    assert packed == sorted(flow for path in ucdavis.find(simulated) for flow in flows_of(ucdavis.read(path, WHOLE)))
    # class folders at the top of the archive, and what a Mac adds
    flat = tmp_path / "flat" / "pretraining.zip"
    flat.parent.mkdir()
    with zipfile.ZipFile(flat, "w") as archive:
        archive.writestr("Youtube/Youtube-1.txt", SAMPLE)
        archive.writestr("__MACOSX/Youtube/._Youtube-1.txt", b"\0")
        archive.writestr("readme.txt", b"hello")
    assert list(flows_of(ucdavis.read(flat, WHOLE)))[0][:3] == (
        "Youtube", "pretraining", "pretraining/Youtube/Youtube-1.txt",
    )  # fmt: skip


def test_find_takes_roots_and_parts_and_leaves_other_sets(simulated, tmp_path):
    every = ucdavis.find(simulated)
    assert ucdavis.find(simulated.parent) == every
    partition = simulated / "pretraining"
    assert ucdavis.find(partition) == [path for path in every if path.parent == partition]
    assert ucdavis.find(every[0]) == [every[0]]
    flow = next(every[0].iterdir())
    assert ucdavis.find(flow) == [flow]
    assert len(read_one(flow)) == 1
    # a partition that is unpacked is not read from its zip again
    write(tmp_path)
    for name in FOLDERS.values():
        (tmp_path / f"{name}.zip").write_bytes(b"")
    assert sorted(path.name for path in ucdavis.find(tmp_path)) == [
        "Google Doc", f"{FOLDERS['human']}.zip", f"{FOLDERS['script']}.zip",
    ]  # fmt: skip
    other = tmp_path / "other"
    (other / "Youtube").mkdir(parents=True)
    (other / "Youtube" / "a.txt").write_text(SAMPLE)
    assert ucdavis.find(other) == ucdavis.find(other / "Youtube" / "a.txt") == ucdavis.find(tmp_path / "no") == []


def test_published_figures_agree_with_each_other():
    published = ucdavis.UCDAVIS19.published
    assert published.flows == sum(published.flows_per_class.values()) == sum(published.flows_per_partition.values())
    assert tuple(published.flows_per_class) == CLASSES


def test_simulation_is_deterministic(simulated, tmp_path):
    simulate(tmp_path / "a", 200, 3)
    files = {path.relative_to(tmp_path / "a"): path for path in (tmp_path / "a").rglob("*.txt")}
    assert len(files) == 200
    for name, path in files.items():
        assert path.read_bytes() == (simulated / name).read_bytes()
    digests = []
    for folder in ("b", "c"):
        simulate(tmp_path / folder, 40, 3, packed=True)
        digests.append([hashlib.md5(path.read_bytes()).hexdigest() for path in sorted((tmp_path / folder).iterdir())])
    assert digests[0] == digests[1]


def test_another_layer_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        read_one(write(tmp_path), ReadOptions(size_layer="ip"))


def attack(tmp_path, n):
    path = write(tmp_path, SAMPLE * 2)
    archive = tmp_path / "zips" / "pretraining.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.write(path, "pretraining/Google Doc/GoogleDoc-1000.txt")
    refused = 0
    for file in (path, archive):
        for data in mutated_copies(file.read_bytes(), n // 2, 1):
            file.write_bytes(data)
            try:
                list(ucdavis.read(file, ReadOptions()))
            except JaxTrafficError:
                refused += 1
    assert refused > n // 10


def test_damaged_files_give_our_errors_only(tmp_path):
    attack(tmp_path, 50)


@pytest.mark.slow
def test_many_damaged_files_give_our_errors_only(tmp_path):
    attack(tmp_path, 2_000)
