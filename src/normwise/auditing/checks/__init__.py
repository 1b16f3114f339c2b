"""The audit's checks, each a function of what is known so far. A new check is one function and its name in this list."""

from . import answers, call_contexts, fresh_copy, gradients, neighbours, parts, saturation, searches
from .case import GAP, Case, Found, Question, found, question
from .fresh_copy import in_a_process
from .gradients import cutting_layers
from .rechecks import copy_of
from .record import Audited
from .verdict import conclude

CHECKS: tuple[
    Question, ...
] = (  # cheap ones first; the first measures coupling, and `outputs` makes the claim where none is
    answers.repeated,
    answers.batch_size,
    answers.outputs,
    answers.one_class,
    answers.pixels,
    answers.dead,
    answers.logit_size,
    gradients.per_layer,
    gradients.surface,
    gradients.leaking,
    gradients.one_step,
    searches.radius_one,
    searches.radii,
    searches.transfer,
    searches.black_box,
    gradients.passed_through,
    gradients.noise,
    parts.routes,
    parts.substitute,
    parts.smooth_range,
    saturation.saturated,
    neighbours.poisoned,
    neighbours.single,
    neighbours.peers,
    neighbours.elsewhere,
    searches.starts,
    searches.steps,
    searches.losses,
    call_contexts.grid,
    fresh_copy.fresh_copy,
    call_contexts.ways,  # late, for what it asks in inference_mode may stay in a network's own caches
    searches.stronger,
)

__all__ = [
    "CHECKS",
    "GAP",
    "Audited",
    "Case",
    "Found",
    "Question",
    "conclude",
    "copy_of",
    "cutting_layers",
    "found",
    "in_a_process",
    "question",
]
