"""CURVE key pairs: the server's and each client's, kept in files that only their owner reads."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq

KEY: Final = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
MAX_FILE_BYTES: Final = 64 * 1024


class KeyFileWrong(Exception):
    """A key file that cannot be made or read; the text names the file and never its content."""


@dataclass(frozen=True)
class KeyFile:
    """A file with a secret key, the public key that belongs to it, and whether the file was made just now."""

    path: Path
    public: str
    made: bool


def ensure(path: Path) -> KeyFile:
    """Make a key pair and write its secret key to a new file of mode 0600; a file that is there is kept and read.

    Raises `KeyFileWrong`.
    """
    public, secret = zmq.curve_keypair()
    try:
        # O_EXCL: an old key is never overwritten, and nobody else can have opened the file before it has its mode
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return read(path)
    except OSError as error:
        raise KeyFileWrong(f"{path} cannot be made: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask says
        file.write(secret + b"\n")
        file.flush()
        os.fsync(descriptor)
    return KeyFile(path, public.decode(), True)


def read(path: Path) -> KeyFile:
    """Return what is known of a file that `ensure` wrote; raises `KeyFileWrong`."""
    secret = read_secret(path)
    try:
        public = zmq.curve_public(secret.encode())
    except (zmq.ZMQError, ValueError):
        raise KeyFileWrong(f"{path} holds no secret key: its 40 characters are no Z85") from None
    return KeyFile(path, public.decode(), False)


def read_secret(path: Path) -> str:
    """Return the secret key of a file: 40 characters of Z85 alone in it; raises `KeyFileWrong`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES).decode("ascii").strip()
    except OSError as error:
        raise KeyFileWrong(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileWrong(f"{path} holds no secret key: it is not ASCII text") from None
    if not KEY.fullmatch(text):
        raise KeyFileWrong(f"{path} holds no secret key: expected 40 characters of Z85 and nothing else")
    return text


def is_private(path: Path) -> bool:
    """Tell whether only its owner may read the file."""
    return not path.stat().st_mode & 0o077
