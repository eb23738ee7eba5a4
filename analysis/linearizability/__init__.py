"""Is a history linearizable? `check` answers; docs/linearizability.md says how."""

from raftbed.analysis.linearizability.checker import CHECKER, Progress, check
from raftbed.analysis.linearizability.limited import check_limited
from raftbed.analysis.linearizability.operations import MODELS, infer_model

__all__ = ["CHECKER", "MODELS", "Progress", "check", "check_limited", "infer_model"]
