"""Raw bytes on disk into packet series: reading, curation, folds, interchange, and a simulated stand-in.

NumPy and polars only; jax comes in through `jaxtraffic.series` alone.
"""

from jaxtraffic.datasets.catalogue import DATASETS, Dataset, load, load_with_counts, stand_in_notice
from jaxtraffic.datasets.curation import Dropped
from jaxtraffic.datasets.folds import Split, split
from jaxtraffic.datasets.interchange import read_parquet, write_parquet
from jaxtraffic.datasets.roots import data_root

__all__ = [
    "DATASETS",
    "Dataset",
    "Dropped",
    "Split",
    "data_root",
    "load",
    "load_with_counts",
    "read_parquet",
    "split",
    "stand_in_notice",
    "write_parquet",
]
