"""From the files of a run folder to figures, tables and one page that a person can mail; imports no jax."""

from jaxtraffic.report.tables import judgement_table
from jaxtraffic.report.write import write_report

__all__ = ["judgement_table", "write_report"]
