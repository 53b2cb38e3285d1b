"""Typed relations between templates and documents: what a template asks for, what a document can answer, and the gate."""

from fineinstructions.embedded.relations.evidence import Evidence
from fineinstructions.embedded.relations.gate import RelationGate, evidence
from fineinstructions.embedded.relations.wanted import Wanted, wanted

__all__ = ["Evidence", "RelationGate", "Wanted", "evidence", "wanted"]
