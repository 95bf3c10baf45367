"""MAVLink 2 signing: a key that two ends share, and stamps that never go back.

https://mavlink.io/en/guide/message_signing.html. A packet ends with the link's id, a stamp (10 us since 2015) and the
first 48 bits of SHA-256 over key and packet. pymavlink signs what leaves. What comes is checked here: pymavlink
remembers the stamp of a packet before it knows that the signature is right, so one forged packet would shut the
vehicle out; and it lets messages that it does not know pass unsigned.

A vehicle without GPS may live in the past by its own stamps and is refused at first. It takes over ours from the first
packet of ours that it hears, and is accepted from then on: keep speaking to it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.mavlink.wire.framing import Refused

_EPOCH_NS = 1_420_070_400 * 1_000_000_000  # 2015-01-01T00:00 UTC
_TICK_NS = 10_000
_SECOND = 100_000  # ticks
_MINUTE = 60 * _SECOND
_KEY_BYTES = 32
_PASSPHRASE = b"passphrase:"
_SIGNATURE_BYTES = 6
_LINK_AT, _STAMP_AT = -13, -12  # from the end of a packet
_FORMS = "32 bytes, 64 hex digits, or one line `passphrase: ...`"
_log = logging.getLogger(__name__)


class SigningKey:
    """The key of one link, its stamps, and the newest stamp of every sender.

    `link_id` (0 to 255) tells apart programs that speak as the same component with the same key. `stamp_file` keeps,
    over restarts and wrong clocks, a stamp that none of ours was later than; without it only the clock holds them.
    LinkError for a key that cannot be one, or where the stamp cannot be kept.
    """

    def __init__(
        self,
        secret: bytes,
        *,
        link_id: int = 0,
        stamp_file: Path | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if len(secret) != _KEY_BYTES or not any(secret):
            raise LinkError("signing key", f"{len(secret)} bytes", "32 bytes, not all zero")
        if not 0 <= link_id <= 255:
            raise LinkError("signing link id", link_id, "0 to 255")
        self.secret, self.link_id = secret, link_id
        self._stamp_file, self._clock_ns = stamp_file, clock_ns
        self._heard: dict[tuple[int, int, int], int] = {}
        self._last = self._kept_until = 0 if stamp_file is None else _read_stamp(stamp_file)
        self._keep_failed = False
        if stamp_file is not None:
            try:  # at start-up, where it can still be mended, and as safe against a power cut as it gets
                _write_stamp(stamp_file, self._last, sync=True)
            except OSError as error:
                raise LinkError("cannot keep the signing stamp", error, "", "make the key's folder writable") from error

    @classmethod
    def load(cls, path: Path | str, *, link_id: int = 0, clock_ns: Callable[[], int] = time.time_ns) -> SigningKey:
        """The key in a file that only its owner may touch; the stamp is kept beside it. LinkError otherwise."""
        path = Path(path)
        stamp_file = path.with_name(f"{path.name}.link{link_id}.stamp")
        return cls(read_secret(path), link_id=link_id, stamp_file=stamp_file, clock_ns=clock_ns)

    def next_stamp(self) -> int:
        """A stamp for one packet: now, but later than any before, whatever the clock does."""
        now = self._now()
        ahead = self._last >= now
        self._last = max(self._last + 1, now)
        # A stamp further on is kept, about once a minute, so that a crash need not be told of. Ahead of the clock
        # stamps go on by one tick a packet, little is reserved, and the clock catches up even after many crashes.
        reserve = _SECOND if ahead else _MINUTE
        if self._last + reserve // 6 >= self._kept_until:  # early: the file may reach the disk seconds later
            self._keep(self._last + reserve)
        return self._last

    def refuses(self, packet: bytes) -> Refused | None:
        """Why a whole signed packet (version 2) is not to be believed; None where it is, and then it is remembered."""
        digest = hashlib.sha256(self.secret + packet[:-_SIGNATURE_BYTES]).digest()[:_SIGNATURE_BYTES]
        if not hmac.compare_digest(digest, packet[-_SIGNATURE_BYTES:]):
            return Refused.BAD_SIGNATURE
        sender = (packet[5], packet[6], packet[_LINK_AT])
        stamp = int.from_bytes(packet[_STAMP_AT:-_SIGNATURE_BYTES], "little")
        # The first of a sender may be a minute old: clocks differ.
        oldest = self._heard.get(sender, max(self._now(), self._last) - _MINUTE - 1)
        if stamp <= oldest:
            return Refused.REPLAYED
        self._heard[sender] = stamp
        self._last = max(self._last, stamp)  # as the standard has it: an end whose clock is behind catches up
        return None

    def close(self) -> None:
        """Keep the exact stamp: the next start goes on from there."""
        if self._stamp_file is not None:
            self._keep(self._last, sync=True)

    def _now(self) -> int:
        return max(0, (self._clock_ns() - _EPOCH_NS) // _TICK_NS)

    def _keep(self, until: int, sync: bool = False) -> None:
        self._kept_until = until
        if self._stamp_file is None:
            return
        try:
            _write_stamp(self._stamp_file, until, sync)
        except OSError as error:  # in flight: a key that signs is worth more than its file
            if not self._keep_failed:
                _log.warning("the signing stamp cannot be kept: %s", error)
            self._keep_failed = True


def read_secret(path: Path) -> bytes:
    """The 32 bytes of a key file: themselves, 64 hex digits, or SHA-256 of a passphrase as ground stations take it.

    LinkError for a file that is missing, open to others than its owner, or none of these.
    """
    try:
        open_to_others = path.stat().st_mode & 0o077
        content = path.read_bytes()
    except OSError as error:
        raise LinkError("cannot read the signing key", f"{path} ({error.strerror})") from error
    if open_to_others:
        raise LinkError("signing key open to others", path, "a file for its owner alone", f"chmod 600 {path}")
    line = content.strip()
    if line.startswith(_PASSPHRASE):
        phrase = line[len(_PASSPHRASE) :].strip()
        if phrase and b"\n" not in phrase:
            return hashlib.sha256(phrase).digest()
    elif len(content) == _KEY_BYTES:
        return content
    elif len(line) == 2 * _KEY_BYTES:
        try:
            return bytes.fromhex(line.decode("ascii"))
        except ValueError:  # also what is not ASCII; told below without a word of the content
            pass
    raise LinkError("not a signing key", path, _FORMS, "make one with: pilotage link key FILE")


def setup_signing(key: SigningKey, target_system: int, target_component: int = 1) -> mav.MAVLink_setup_signing_message:
    """Gives the vehicle the key and the time. The key lies open in it: for a cable, never for a radio."""
    return mav.MAVLink_setup_signing_message(target_system, target_component, list(key.secret), key.next_stamp())


def create_key(path: Path) -> None:
    """A new random key, 64 hex digits, for its owner alone. LinkError where the file exists or cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        _write_private(partial, secrets.token_hex(_KEY_BYTES) + "\n", sync=True)
        try:
            os.link(partial, path)  # unlike a rename it never replaces a key
        finally:
            partial.unlink()
    except FileExistsError as error:
        raise LinkError("a key is there already", path, "another name") from error
    except OSError as error:
        raise LinkError("cannot write the signing key", f"{path} ({error.strerror})") from error


def _read_stamp(path: Path) -> int:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise LinkError(
            "unreadable signing stamp", f"{path} ({error})", "a number", "where the clock is right: delete it"
        ) from error


def _write_stamp(path: Path, stamp: int, sync: bool) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    _write_private(partial, f"{stamp}\n", sync)
    os.replace(partial, path)


def _write_private(path: Path, text: str, sync: bool) -> None:
    """A new file that was never open to others, not for an instant."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())
