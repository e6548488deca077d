"""A trained model becomes a generation, a generation answers requests: in process (Scorer) or over HTTP (serve, Client).

The model is rebuilt by a builder that the caller gives; no tower is known here by name.
"""

from prerank.serving.app import create
from prerank.serving.calibration import CALIBRATORS, CalibrationError, Calibrator, Isotonic, Platt
from prerank.serving.client import Client, ClientError
from prerank.serving.experiment import Experiment
from prerank.serving.export import export
from prerank.serving.generation import Generation, GenerationError, current, open_current
from prerank.serving.messages import MessageError, Request, Response
from prerank.serving.scorer import Builder, Scorer
from prerank.serving.server import ServerError, serve
from prerank.serving.service import Settings

__all__ = [
    "CALIBRATORS",
    "Builder",
    "CalibrationError",
    "Calibrator",
    "Client",
    "ClientError",
    "Experiment",
    "Generation",
    "GenerationError",
    "Isotonic",
    "MessageError",
    "Platt",
    "Request",
    "Response",
    "Scorer",
    "ServerError",
    "Settings",
    "create",
    "current",
    "export",
    "open_current",
    "serve",
]
