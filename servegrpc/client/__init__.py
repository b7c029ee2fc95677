"""Calls a servegrpc server from Python, with threads (`Client`) or asyncio (`AsyncClient`).

    with Client("127.0.0.1:7070") as client:
        print(client.predict("digits", {"data": open("seven.png", "rb").read()}).output)

Needs grpcio, protobuf and numpy; loads nothing of the server, and torch only where a tensor of it is asked for.
"""

from servegrpc.client.aio import AsyncClient
from servegrpc.client.connection import Tls
from servegrpc.client.errors import CallError
from servegrpc.client.results import HealthStatus, Model, ModelEvent, Models, ModelSettings, ModelVersion, Prediction, Timing, Worker
from servegrpc.client.session import AsyncSession, Session
from servegrpc.client.sync import Client

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "CallError",
    "Client",
    "HealthStatus",
    "Model",
    "ModelEvent",
    "ModelSettings",
    "ModelVersion",
    "Models",
    "Prediction",
    "Session",
    "Timing",
    "Tls",
    "Worker",
]
