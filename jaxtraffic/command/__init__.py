"""The command line: `python -m jaxtraffic`, and what the experiment scripts share with it."""

from jaxtraffic.command.line import command_line, report_errors

__all__ = ["command_line", "report_errors"]
