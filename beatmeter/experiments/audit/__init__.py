"""Audits: labels that are probably wrong, clips that are in a dataset twice, and the review list for a person
to decide.

from beatmeter.experiments.audit import audit, write_audit
"""

from beatmeter.experiments.audit.audit import Audit, audit, write_audit
from beatmeter.experiments.audit.review import Review

__all__ = ["Audit", "Review", "audit", "write_audit"]
