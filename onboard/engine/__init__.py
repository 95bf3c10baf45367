"""Engines: what runs a model file. One protocol, a backend per runtime."""

from onboard.engine.base import SHIPPED_MODEL, Embeddings, Engine, ModelFacts
from onboard.engine.open import open_engine

__all__ = ["SHIPPED_MODEL", "Embeddings", "Engine", "ModelFacts", "open_engine"]
