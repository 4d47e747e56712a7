"""All tables, from one place: other modules import them from here, and `Base.metadata` is complete once this is loaded.

The tables are in `db.tables`, without behaviour: functions are in the modules named after the tables.
"""

from db.tables.access import Login, Token
from db.tables.attempts import Attempt, DeletedMember, Member
from db.tables.base import THIS_TRANSACTION, Base
from db.tables.events import AlertDelivery, AlertTarget, Event
from db.tables.files import Package, StoredFiles, StoredPiece
from db.tables.machines import Host, Machine
from db.tables.output import AttemptSource, LogChunk, Notice
from db.tables.points import Convergence, CurveLevel, Metric, ParameterValue, Result
from db.tables.processes import Coverage, Watcher
from db.tables.projects import Budget, Project
from db.tables.queue import Plan, QueueClass
from db.tables.simulations import Dependency, Simulation
from db.tables.sweeps import RungResult, Sweep, Trial

__all__ = [
    "THIS_TRANSACTION",
    "AlertDelivery",
    "AlertTarget",
    "Attempt",
    "AttemptSource",
    "Base",
    "Budget",
    "Convergence",
    "Coverage",
    "CurveLevel",
    "DeletedMember",
    "Dependency",
    "Event",
    "Host",
    "LogChunk",
    "Login",
    "Machine",
    "Member",
    "Metric",
    "Notice",
    "Package",
    "ParameterValue",
    "Plan",
    "Project",
    "QueueClass",
    "Result",
    "RungResult",
    "Simulation",
    "StoredFiles",
    "StoredPiece",
    "Sweep",
    "Token",
    "Trial",
    "Watcher",
]
