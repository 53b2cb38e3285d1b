"""Typed relations: what a template asks for, what a document can answer, and the gate between them."""

from fineinstructions.embedded.relations.gate import RelationGate, evidence
from fineinstructions.embedded.relations.questions import Wanted, wanted
from fineinstructions.embedded.relations.reading import Evidence

__all__ = ["Evidence", "RelationGate", "Wanted", "evidence", "wanted"]
