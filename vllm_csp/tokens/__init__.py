"""Which image tokens go through which layers, free of vLLM.

A ``Schedule`` (by name: ``policy``) says per layer range how many image tokens are kept and by
which selector; ``TokenPlan`` turns a batch into each stage's rows, lengths and KV slots;
``accounting`` says what it costs.
"""

from vllm_csp.tokens.batch import Batch, PlanError
from vllm_csp.tokens.plan import StagePlan, TokenPlan
from vllm_csp.tokens.policies import POLICIES, at_kept, at_mean, policy
from vllm_csp.tokens.scatter import reactivate
from vllm_csp.tokens.schedule import Schedule, Stage
from vllm_csp.tokens.score_rows import ScoreRows

__all__ = [
    "POLICIES",
    "Batch",
    "PlanError",
    "Schedule",
    "ScoreRows",
    "Stage",
    "StagePlan",
    "TokenPlan",
    "at_kept",
    "at_mean",
    "policy",
    "reactivate",
]
