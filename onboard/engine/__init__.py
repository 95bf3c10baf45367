"""Engines: what runs a model file. One protocol, a backend per runtime."""

from onboard.engine.base import Embeddings, Engine, ModelFacts, open_engine

__all__ = ["Embeddings", "Engine", "ModelFacts", "open_engine"]
