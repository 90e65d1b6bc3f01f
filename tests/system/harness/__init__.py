"""What the system tests are made of: objects that own their ports, folders and processes."""
from .box import BUILD, ROOT, SANITIZER, SLOW, Box, Process, binary
from .counters import Counters
from .gateway import Gateway, Refused, model, replica
from .load import Load
from .segue import MODELS, Fake, Segue, builtin, command, openai
from .upstream import Conn, Upstream, answer, chunked, event_stream
from .wait import wait_until
from .wire import Answer, Wire, chat, head, post

__all__ = [
    "BUILD", "ROOT", "SANITIZER", "SLOW", "Box", "Process", "binary",
    "Counters", "Gateway", "Refused", "model", "replica",
    "Load", "MODELS", "Fake", "Segue", "builtin", "command", "openai",
    "Conn", "Upstream", "answer", "chunked", "event_stream",
    "wait_until",
    "Answer", "Wire", "chat", "head", "post",
]
