"""A board over SSH: asyncssh for commands and small files, the system's own client for large ones."""

import asyncio
import contextlib
import io
import os
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, BinaryIO, TypeVar

import asyncssh

from pocketbert.devices.inventory import SshParams
from pocketbert.devices.links.base import Finished, LinkLost
from pocketbert.devices.links.bulk import BULK_BYTES, CONNECTION_FAILED, find_client, send_bulk
from pocketbert.devices.links.host_key import PinnedKey, parse_host_key, signatures
from pocketbert.devices.links.posix import PosixLink
from pocketbert.devices.links.scripts import last_line, printable, quote
from pocketbert.errors import DeviceError, ParamsError

T = TypeVar("T")

# A silent device is found in three seconds: one of silence, then two questions without an answer.
KEEP_ALIVE_S = 1
KEEP_ALIVE_COUNT = 2
_CONNECT_S = 15.0
_PIECE_BYTES = 64 << 10


class _Client(asyncssh.SSHClient):
    """Judges the server's key by the pinned fingerprint alone; remembers the one that it showed."""

    def __init__(self, pinned: PinnedKey) -> None:
        self.pinned = pinned
        self.fingerprint, self.kind = "", ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        """Called for every key, as no key is known beforehand."""
        self.fingerprint, self.kind = key.get_fingerprint(), key.get_algorithm()
        return self.fingerprint == self.pinned.fingerprint


class SshLink(PosixLink):
    """A connection with strict host keys and a keep-alive.

    Neither ~/.ssh/config nor ~/.ssh/known_hosts nor an agent is asked: devices.yaml says it all.
    """

    def __init__(self, name: str, params: SshParams) -> None:
        self.name, self.params = name, params
        self._pinned = parse_host_key(params.host_key)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: asyncssh.SSHClientConnection | None = None

    def connect(self) -> None:
        """As in Link."""
        self.close()
        key = self._read_key()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"ssh-{self.name}", daemon=True)
        self._thread.start()
        try:
            self._connection = self._wait(self._open(key))
            self.prove_shell()
        except BaseException:
            self.close()
            raise

    def run(self, argv: Sequence[str], *, timeout_s: float, input: bytes | None = None) -> Finished:
        """As in Link."""
        return self._wait(self._run(quote(argv), io.BytesIO(input or b""), timeout_s))

    def send(self, argv: Sequence[str], stream: BinaryIO, size: int) -> Finished:
        """As in PosixLink."""
        connection, client = self._alive(), find_client()
        host_key = connection.get_server_host_key()
        if size < BULK_BYTES or client is None or host_key is None or self.params.passphrase_variable is not None:
            return self._wait(self._run(quote(argv), stream, None))
        shown = host_key.export_public_key().decode("ascii")
        done = send_bulk(client, self.params, shown, quote(argv), stream, alive=lambda: not connection.is_closed())
        if done is None or done.returncode == CONNECTION_FAILED:
            raise self._lost(last_line(done.stderr) if done else "it broke in the middle of a file")
        return done

    def close(self) -> None:
        """As in Link."""
        loop, connection, thread = self._loop, self._connection, self._thread
        self._loop = self._connection = self._thread = None
        if loop is None or thread is None:
            return
        if connection is not None:
            # Whoever waits for an answer gets LinkLost before the loop ends.
            asyncio.run_coroutine_threadsafe(_abort(connection), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _open(self, key: asyncssh.SSHKey) -> asyncssh.SSHClientConnection:
        """Where a fingerprint does not tell its kind, ask the server for one key after the other."""
        kinds, shown = self._pinned.kinds(), list[str]()
        while kinds:
            client = _Client(self._pinned)
            try:
                connection = await asyncio.wait_for(self._try(key, client, signatures(kinds)), _CONNECT_S)
            except asyncssh.HostKeyNotVerifiable:
                shown.append(client.fingerprint)
                kinds = [kind for kind in kinds if kind != client.kind and self._pinned.kind is None]
            except (asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed, ConnectionResetError) as error:
                # The answer of a server that has no other key.
                if shown:
                    break
                if isinstance(error, asyncssh.KeyExchangeFailed):
                    raise self._refused(f"speaks no SSH that is safe today: {printable(str(error))}") from error
                raise
            else:
                # A link that is opened anew needs no second question.
                self._pinned = PinnedKey(client.fingerprint, client.kind)
                return connection
        raise self._refused(f"shows the host key {' and '.join(shown)}, devices.yaml pins {self._pinned.fingerprint}")

    def _refused(self, why: str) -> DeviceError:
        return DeviceError(
            f"{self.name}: {self.params.address}:{self.params.port} {why}",
            "Somebody may be between you and the device. If its key was changed on purpose, compare it there "
            "(`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`) and pin the new one.",
        )

    async def _try(self, key: asyncssh.SSHKey, client: _Client, algorithms: list[str]) -> asyncssh.SSHClientConnection:
        connection, _ = await asyncssh.create_connection(
            lambda: client, self.params.address, self.params.port, username=self.params.user, client_keys=[key],
            known_hosts=([], [], []), server_host_key_algs=algorithms, config=None, agent_path=None,
            preferred_auth="publickey", keepalive_interval=KEEP_ALIVE_S, keepalive_count_max=KEEP_ALIVE_COUNT,
        )  # fmt: skip
        return connection

    def _read_key(self) -> asyncssh.SSHKey:
        path, variable = self.params.key.expanduser(), self.params.passphrase_variable
        try:
            mode = path.stat().st_mode
            if mode & 0o077:
                raise ParamsError(f"{path} can be read by others (mode {mode & 0o777:o})", f"Run `chmod 600 {path}`.")
            return asyncssh.read_private_key(path, os.environ.get(variable) if variable else None)
        except OSError as error:
            raise ParamsError(
                f"{self.name}: {path} cannot be read: {error.strerror}", "Name the key's file."
            ) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise ParamsError(
                f"{self.name}: {path} is no private key that can be opened: {printable(str(error))}",
                "Set passphrase_variable to the environment variable that holds its passphrase.",
            ) from error

    async def _run(self, command: str, stream: BinaryIO, timeout_s: float | None) -> Finished:
        """Run a line with `stream` as its input, each piece sent once the device took the one before."""
        process: asyncssh.SSHClientProcess[bytes] = await self._alive().create_process(command, encoding=None)
        try:
            (stdout, stderr), _ = await asyncio.wait_for(
                asyncio.gather(process.communicate(), _feed(process.stdin, stream)), timeout_s
            )
        except TimeoutError as error:
            process.kill()
            process.close()
            raise DeviceError(
                f"{self.name}: `{printable(command)}` did not end within {timeout_s:g} s", "Look at the device's load."
            ) from error
        # A command without exit code did not end: the connection did.
        if process.returncode is None:
            raise self._lost("it broke in the middle of a command")
        return Finished(process.returncode, stdout, stderr)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the link's thread; what breaks the connection becomes LinkLost."""
        if self._loop is None:
            work.close()
            raise self._lost("it is not open")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except asyncssh.PermissionDenied as error:
            raise DeviceError(
                f"{self.name}: {self.params.user}@{self.params.address} refuses {self.params.key}",
                "Add its public key to ~/.ssh/authorized_keys there, or name another key or user.",
            ) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise self._lost(printable(str(error)) or "no answer") from error
        finally:
            future.cancel()

    def _alive(self) -> asyncssh.SSHClientConnection:
        if self._connection is None or self._connection.is_closed():
            raise self._lost("it is not open")
        return self._connection

    def _lost(self, why: str) -> LinkLost:
        return LinkLost(
            f"{self.name}: the link to {self.params.address}:{self.params.port} is lost: {why}",
            "Check the device's power and network, then run it again: what is done there is kept.",
        )


async def _abort(connection: asyncssh.SSHClientConnection) -> None:
    connection.abort()
    await connection.wait_closed()


async def _feed(stdin: asyncssh.SSHWriter[bytes], stream: BinaryIO) -> None:
    """Send a stream and its end; a command that ends before its input does says why by its exit code."""
    with contextlib.suppress(BrokenPipeError):
        while piece := stream.read(_PIECE_BYTES):
            stdin.write(piece)
            await stdin.drain()
        stdin.write_eof()
