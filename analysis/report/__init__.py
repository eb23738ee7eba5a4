"""The HTML report: one file per run that opens offline, made from what the run directory holds."""

from raftbed.analysis.report.page import write_report

__all__ = ["write_report"]
