"""Key files, and how a vehicle is taught one."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_wire import KEY, heartbeat, listening_socket, packed, packer
from typer.testing import CliRunner

from onboard.errors import LinkError
from onboard.mavlink.wire import key_cli
from onboard.mavlink.wire.signing import SigningKey, create_key, read_secret


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (KEY, KEY),
        (KEY.hex().encode() + b"\n", KEY),
        (KEY.hex().upper().encode(), KEY),
        # SHA-256 of "abc" by FIPS 180-2
        (
            b"passphrase: abc\n",
            bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ),
    ],
)
def test_a_key_file_holds_raw_bytes_hex_digits_or_a_passphrase(tmp_path: Path, content: bytes, secret: bytes) -> None:
    assert read_secret(key_file(tmp_path, content)) == secret


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret",
        KEY[:31],
        KEY + b"\n",
        KEY.hex().encode()[:63],
        b"g" * 64,
        b"passphrase: ",
        b"passphrase: a\nb",
        b"\xff" * 64,
    ],
)
def test_anything_else_is_no_key_and_is_not_repeated_in_the_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(LinkError, match=r"32 bytes, 64 hex digits.*pilotage link key") as caught:
        read_secret(key_file(tmp_path, content))
    told = str(caught.value).replace("passphrase: ...", "")
    assert not content or content.decode("latin-1") not in told


def test_a_key_of_zeros_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="not all zero"):
        SigningKey.load(key_file(tmp_path, bytes(32)))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, KEY, mode)
    with pytest.raises(LinkError, match=f"chmod 600 {path}"):
        SigningKey.load(path)


def test_a_missing_key_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot read the signing key"):
        SigningKey.load(tmp_path / "none")


def test_a_broken_stamp_file_is_told_of(tmp_path: Path) -> None:
    path = key_file(tmp_path, KEY)
    (tmp_path / "key.link0.stamp").write_text("")
    with pytest.raises(LinkError, match="unreadable signing stamp"):
        SigningKey.load(path)


def test_the_command_makes_a_private_key_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert CliRunner().invoke(key_cli.app, ["key", str(path)]).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    secret = SigningKey.load(path).secret
    with pytest.raises(LinkError, match="a key is there already"):
        create_key(path)
    assert read_secret(path) == secret
    assert sorted(one.name for one in tmp_path.iterdir()) == ["key", "key.link0.stamp"]


class ScriptedVehicle:
    """Answers every packet that comes over TCP with a heartbeat; signs once it was given a key, if it `learns`."""

    def __init__(self, armed: bool = False, learns: bool = True) -> None:
        self._server = listening_socket()
        self.address = f"tcp:127.0.0.1:{self._server.getsockname()[1]}"
        self._heartbeat = heartbeat()
        self._heartbeat.base_mode |= mav.MAV_MODE_FLAG_SAFETY_ARMED * armed
        self._learns = learns
        self.given: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        ear, talker = packer(), packer()
        peer, _ = self._server.accept()
        peer.settimeout(5)
        with peer, contextlib.suppress(ConnectionError):  # who hangs up may leave an answer unread
            while data := peer.recv(4096):
                for message in ear.parse_buffer(data) or ():
                    if message.get_type() == "SETUP_SIGNING":
                        self.given.append(bytes(message.secret_key))
                        if self._learns:
                            talker = packer(secret=self.given[-1], stamp=message.initial_timestamp)
                peer.sendall(packed(talker, self._heartbeat)[0])

    def end(self) -> None:
        self._thread.join(10)
        self._server.close()


def test_a_vehicle_is_taught_the_key_and_then_signs_with_it(tmp_path: Path) -> None:
    vehicle = ScriptedVehicle()
    path = key_file(tmp_path, KEY)
    result = CliRunner().invoke(key_cli.app, ["teach", str(path), vehicle.address], input="y\n")
    vehicle.end()
    assert result.exit_code == 0, result.output
    assert "signs with" in result.output
    assert vehicle.given == [KEY, KEY]


def test_a_vehicle_is_taught_nothing_where_the_answer_is_no(tmp_path: Path) -> None:
    vehicle = ScriptedVehicle()
    result = CliRunner().invoke(key_cli.app, ["teach", str(key_file(tmp_path, KEY)), vehicle.address], input="n\n")
    vehicle.end()
    assert result.exit_code == 1
    assert vehicle.given == []


def test_an_armed_vehicle_is_taught_nothing(tmp_path: Path) -> None:
    vehicle = ScriptedVehicle(armed=True)
    result = CliRunner().invoke(key_cli.app, ["teach", str(key_file(tmp_path, KEY)), vehicle.address, "--yes"])
    vehicle.end()
    assert isinstance(result.exception, LinkError)
    assert "disarmed" in str(result.exception)
    assert vehicle.given == []


def test_a_vehicle_that_does_not_sign_afterwards_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cli, "_PATIENCE_S", 0.5)
    vehicle = ScriptedVehicle(learns=False)
    result = CliRunner().invoke(key_cli.app, ["teach", str(key_file(tmp_path, KEY)), vehicle.address, "--yes"])
    vehicle.end()
    assert isinstance(result.exception, LinkError)
    assert "does not sign with the key" in str(result.exception)
