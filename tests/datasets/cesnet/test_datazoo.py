"""The adapter of cesnet-datazoo, on objects with the attributes that it reads of the real ones."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxtraffic.datasets.cesnet import datazoo
from jaxtraffic.datasets.cesnet.datazoo import from_datazoo
from jaxtraffic.errors import ConfigError, DataError


def packets(n, *, channels=3, seed=0):
    """[n, channels, 30] float32 as datazoo gives them: zero-padded, with real sizes and times of 0 among them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 31, n)
    mask = np.arange(30) < lengths[:, None]
    ppi = np.zeros((n, channels, 30), np.float32)
    ppi[:, 0, 1:] = (rng.integers(0, 400, (n, 29)) * rng.integers(0, 2, (n, 29))) * mask[:, 1:]
    ppi[:, 1] = rng.choice([1, -1], (n, 30)) * mask
    ppi[:, 2] = rng.integers(1, 1473, (n, 30)) * rng.integers(0, 2, (n, 30)) * mask
    ppi[:, 3:] = rng.integers(0, 2, (n, channels - 3, 30))
    return ppi, lengths


class Loader:
    """Batches of a sampler that drops the last, incomplete one, as a shuffled training loader does."""

    def __init__(self, ppi, labels, size, *, drop_last=False, form=tuple):
        self.ppi, self.labels, self.size, self.form = ppi, labels, size, form
        self.sampler = SimpleNamespace(drop_last=drop_last)
        self.given = 0

    def __iter__(self):
        for start in range(0, len(self.labels), self.size):
            part = slice(start, start + self.size)
            if self.sampler.drop_last and len(self.labels[part]) < self.size:
                return
            self.given += 1
            yield self.form((None, self.ppi[part], np.zeros((len(self.labels[part]), 2)), self.labels[part]))


class Dataset:
    """The attributes of cesnet_datazoo.datasets.CesnetDataset that matter."""

    name = "CESNET-QUIC22-XS"

    def __init__(self, loader, names=("alpha", "beta"), *, ready=True):
        self.loader, self.names = loader, list(names)
        self.dataset_config = self.class_info = None
        self.calls = 0
        if ready:
            self.set_dataset_config_and_initialize(SimpleNamespace(ppi_transform=None))
            self.calls = 0

    def set_dataset_config_and_initialize(self, config):
        self.calls += 1
        self.dataset_config = config
        self.class_info = SimpleNamespace(num_classes=len(self.names), target_names=[*self.names, "_unknown"])

    def get_train_dataloader(self):
        return self.loader

    def get_val_dataloader(self):
        raise ValueError("Validation dataloader is not available when using no-validation")

    get_test_dataloader = get_train_dataloader


def dataset_of(n=50, *, channels=3, size=16, names=("alpha", "beta"), flat=False, **options):
    ppi, lengths = packets(n, channels=channels)
    labels = np.arange(n) % len(names)
    loader = Loader(ppi.reshape(n, -1) if flat else ppi, labels, size, **options)
    return Dataset(loader, names), ppi, lengths, labels


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("form", [tuple, lambda batch: batch[1:]])
def test_values_for_every_layout(channels, flat, form):
    dataset, ppi, lengths, labels = dataset_of(channels=channels, flat=flat, form=form)
    flows = from_datazoo(dataset)
    np.testing.assert_array_equal(flows.size, ppi[:, 2])
    np.testing.assert_array_equal(flows.direction, ppi[:, 1])
    np.testing.assert_allclose(flows.iat, ppi[:, 0] / 1000, rtol=1e-6)
    np.testing.assert_array_equal(flows.n_packets, lengths)
    np.testing.assert_array_equal(flows.label, labels)
    assert flows.class_names == ("alpha", "beta")
    assert (flows.name, flows.size_layer, flows.source) == ("cesnet_quic", "payload", "real")
    assert (flows.size[flows.mask] == 0).any() and (flows.iat[:, 1:][flows.mask[:, 1:]] == 0).any()


def test_trap_10_padding_is_direction_0_and_nothing_else():
    ppi = np.zeros((2, 3, 30), np.float32)
    ppi[:, 1, :4] = 1
    ppi[0, 2, :4] = [1200, 0, 0, 40]
    flows = from_datazoo(Dataset(Loader(ppi, np.array([0, 1]), 2)))
    assert flows.n_packets.tolist() == [4, 4], "a flow of sizes and times of 0 only has its packets"
    ppi[1, 1, 10] = -1
    with pytest.raises(DataError, match=r"row 2, field PPI: a packet after the padding"):
        from_datazoo(Dataset(Loader(ppi, np.array([0, 1]), 2)))


def test_unknown_applications_are_the_last_class():
    dataset, _, _, labels = dataset_of()
    labels[7] = 2
    flows = from_datazoo(dataset)
    assert flows.class_names == ("alpha", "beta", "_unknown")
    assert flows.label[7] == 2
    labels[7] = 3
    with pytest.raises(DataError, match="label 3"):
        from_datazoo(dataset)


def test_names_of_an_encoder_serve_as_well():
    dataset, *_ = dataset_of()
    dataset.class_info = None
    dataset.encoder = SimpleNamespace(classes_=np.array(["alpha", "beta", "_unknown"]))
    assert from_datazoo(dataset).class_names == ("alpha", "beta")
    dataset.encoder = None
    with pytest.raises(ConfigError, match="target_names"):
        from_datazoo(dataset)


def test_max_flows_stops_early():
    dataset, ppi, *_ = dataset_of(size=16)
    flows = from_datazoo(dataset, max_flows=20)
    np.testing.assert_array_equal(flows.size, ppi[:20, 2])
    assert dataset.loader.given == 2
    assert len(from_datazoo(dataset, max_flows=1000)) == 50


def test_the_last_batch_of_a_shuffled_part_is_kept():
    dataset, *_ = dataset_of(n=50, size=16, drop_last=True)
    assert len(from_datazoo(dataset)) == 50
    assert dataset.loader.sampler.drop_last is True


def test_a_config_is_initialised_once_without_workers_and_tensors():
    dataset, *_ = dataset_of()
    ready = Dataset(dataset.loader, ready=False)
    config = SimpleNamespace(train_workers=4, val_workers=1, test_workers=1, return_tensors=True)
    assert len(from_datazoo(config, dataset=ready)) == len(from_datazoo(config, "test", dataset=ready)) == 50
    assert ready.calls == 1
    assert (config.train_workers, config.val_workers, config.test_workers, config.return_tensors) == (0, 0, 0, False)
    kept = SimpleNamespace(dataset=Dataset(dataset.loader, ready=False))
    assert len(from_datazoo(kept)) == 50


def test_what_does_not_fit_is_refused():
    dataset, *_ = dataset_of()
    with pytest.raises(ConfigError, match="train, val, test"):
        from_datazoo(dataset, "all")
    with pytest.raises(ConfigError, match="max_flows"):
        from_datazoo(dataset, max_flows=0)
    with pytest.raises(ConfigError, match="dataset=dataset"):
        from_datazoo(SimpleNamespace(train_workers=4))
    with pytest.raises(ConfigError, match="not initialised"):
        from_datazoo(Dataset(None, ready=False))
    with pytest.raises(ConfigError, match="no part 'val': Validation dataloader"):
        from_datazoo(dataset, "val")
    with pytest.raises(DataError, match="no flows"):
        from_datazoo(Dataset(Loader(np.zeros((0, 3, 30)), np.zeros(0, int), 4)))
    dataset.dataset_config.ppi_transform = abs
    with pytest.raises(ConfigError, match="ppi_transform"):
        from_datazoo(dataset)
    dataset.dataset_config = SimpleNamespace(psizes_scaler=SimpleNamespace(value="standard"))
    with pytest.raises(ConfigError, match="psizes_scaler"):
        from_datazoo(dataset)
    dataset.dataset_config = SimpleNamespace(psizes_scaler=SimpleNamespace(value="no-scaler"))
    assert len(from_datazoo(dataset)) == 50


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda ppi, labels: (ppi[:, :2], labels), "PPI", "shape (4, 2, 30)"),
        (lambda ppi, labels: (ppi[..., :29], labels), "PPI", "shape (4, 3, 29)"),
        (lambda ppi, labels: (ppi.astype(str), labels), "PPI", "shape (4, 3, 30)"),
        (lambda ppi, labels: (ppi, labels[:3]), "labels", "shape (3,)"),
        (lambda ppi, labels: (ppi, labels * 0.5), "labels", "float64"),
        (lambda ppi, labels: (ppi, labels - 1), "labels", "label -1"),
        (lambda ppi, labels: (ppi * [[1], [1], [0.37]], labels), "PPI SIZE", "size of packet"),
        (lambda ppi, labels: (ppi * [[1], [2], [1]], labels), "PPI DIR", "direction of packet"),
        (lambda ppi, labels: (ppi * [[-1], [1], [1]] - [[1], [0], [0]], labels), "PPI IPT", "time of packet"),
    ],
)
def test_arrays_that_are_no_packets_are_refused_by_name(change, field, words):
    ppi, _ = packets(4)
    ppi, labels = change(ppi, np.array([0, 1, 0, 1]))
    loader = Loader(ppi, labels, 4)
    with pytest.raises(DataError) as refusal:
        from_datazoo(Dataset(loader))
    assert refusal.value.field == field
    assert words in str(refusal.value)
    assert "CESNET-QUIC22-XS:train" in str(refusal.value)


def test_batches_of_another_form_are_refused():
    dataset, *_ = dataset_of(form=lambda batch: batch[1:3])
    with pytest.raises(DataError, match="a batch of 2"):
        from_datazoo(dataset)


def test_neither_torch_nor_datazoo_is_imported():
    tree = ast.parse(Path(datazoo.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names} | {getattr(node, "module", "") for node in imports}
    assert {name.split(".")[0] for name in names if name} & {"torch", "cesnet_datazoo", "pandas", "tables"} == set()
    assert "numpy" in names
