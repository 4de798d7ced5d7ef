"""The Docker engine: the one module that imports `docker`.

Only containers, volumes and networks that carry a label of labkit's are ever looked at or touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.context.config import get_current_context_name
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.tls import TLSConfig

from labkit.errors import ClusterError, ProviderUnavailable
from labkit.lab.providers.docker.limits import Capacity
from labkit.remedies import Remedy, advice, setting

__all__ = ["EMBEDDED", "LABEL", "Container", "Engine", "refusals"]

EMBEDDED = advice("use the provider embedded, which needs no Docker")
"""What helps wherever Docker is what is missing."""

LABEL = "labkit"
"""Its value is the name of the cluster."""
PROGRAM_LABEL = "labkit.program"
"""Of containers that run one program beside a node; its value is the name of the cluster too."""
SERVICE_LABEL = "com.docker.compose.service"
LEAST_API = (1, 41)
LEAST_ENGINE = "20.10"
TIMEOUT_S = 60


class Engine:
    """A Docker engine that answers. Raises ProviderUnavailable if there is none, or it is too old."""

    def __init__(self) -> None:
        self._client = _connect()
        spoken = self._client.version()
        version = str(spoken["ApiVersion"])
        endpoint = _endpoint()
        self.described = f"engine {spoken['Version']} at {endpoint.host} ({endpoint.named_by})"
        if tuple(int(part) for part in version.split(".")) < LEAST_API:
            raise ProviderUnavailable(
                f"the Docker engine speaks API {version}, labkit needs {'.'.join(map(str, LEAST_API))} "
                f"(Docker {LEAST_ENGINE}) or later",
                remedy=[advice("upgrade it"), EMBEDDED],
            )

    def containers(self, cluster: str) -> dict[str, Container]:
        """Node name -> container, running or not, in node order."""
        with refusals():
            found = self._labelled(f"{LABEL}={cluster}")
        named = {str(container.labels[SERVICE_LABEL]): container for container in found}
        return dict(sorted(named.items(), key=lambda item: int(item[0].removeprefix("pg"))))

    def container(self, cluster: str, node: str) -> Container:
        """The container of a node. Raises ClusterError if it is gone."""
        found = self.containers(cluster).get(node)
        if found is None:
            raise ClusterError(
                "its container is gone: it was removed",
                node=node,
                remedy=Remedy("up", "makes it again, its data is in its volume", name=cluster, provider="docker"),
            )
        return found

    def names(self) -> list[str]:
        """Clusters that have containers or volumes, in alphabetical order."""
        with refusals():
            containers = self._labelled(LABEL)
            volumes = self._client.volumes.list(filters={"label": LABEL})
        labels = [container.labels for container in containers] + [volume.attrs["Labels"] or {} for volume in volumes]
        return sorted({str(each[LABEL]) for each in labels})

    def volumes(self, cluster: str) -> list[str]:
        """Names of the volumes of a cluster's nodes."""
        with refusals():
            found = self._client.volumes.list(filters={"label": f"{LABEL}={cluster}"})
        return sorted(str(volume.name) for volume in found)

    def remove(self, container: Container, volume: str) -> None:
        """Remove a container, running or not, and the volume with its data."""
        with refusals():
            container.remove(force=True)
            found = self._client.volumes.get(volume)
            if LABEL in (found.attrs["Labels"] or {}):
                found.remove()

    def _labelled(self, label: str) -> list[Container]:
        """All containers, running or not, that have a label. Those that are removed while they are listed are not."""
        found: list[Container] = self._client.containers.list(all=True, ignore_removed=True, filters={"label": label})
        return found

    def end_programs(self, cluster: str) -> None:
        """Remove what still runs, or was left, of programs beside a cluster's nodes: their lab was killed."""
        with refusals():
            for left in self._labelled(f"{PROGRAM_LABEL}={cluster}"):
                left.remove(force=True, v=True)

    def ensure_image(self, image: str) -> None:
        """Pull an image that is not here. Raises ProviderUnavailable if that fails."""
        with refusals():
            try:
                self._client.images.get(image)
            except NotFound:
                try:
                    self._client.images.pull(image)
                except APIError as error:
                    raise ProviderUnavailable(
                        f"the image {image} is not on this machine and cannot be pulled: {_words(error)}",
                        remedy=[
                            advice("check the network"),
                            setting("LABKIT_PG_IMAGE", "an image that is on this machine"),
                        ],
                    ) from error

    def capacity(self) -> Capacity:
        """What the engine's machine has, and what its kernel can limit."""
        with refusals():
            info = self._client.info()
        return Capacity(
            cpus=int(info["NCPU"]),
            memory_bytes=int(info["MemTotal"]),
            limits_cpus=bool(info.get("CpuCfsQuota", True)),
            limits_memory=bool(info.get("MemoryLimit", True)),
        )

    def limit_cpus(self, container: Container, cpus: float) -> None:
        """Let a container use at most so many CPUs from now on. Raises ClusterError."""
        # The SDK's update() knows quota and period only, and the engine refuses those where Compose has set CPUs.
        api = self._client.api
        with refusals():
            answer = api.post(
                f"{api.base_url}/containers/{container.id}/update",
                json={"NanoCpus": round(cpus * 1e9)},
                timeout=TIMEOUT_S,
            )
            if not answer.ok:
                raise APIError(answer.text, response=answer, explanation=answer.json().get("message"))

    def disconnect(self, container: Container, network: str) -> None:
        """Take a container off a network; no error if it is off."""
        with refusals():
            if network in _networks(container):
                self._client.networks.get(network).disconnect(container)

    def connect(self, container: Container, network: str, aliases: list[str]) -> None:
        """Put a container on a network under these names; no error if it is on."""
        with refusals():
            if network not in _networks(container):
                self._client.networks.get(network).connect(container, aliases=aliases)

    def stats(self, container: Container) -> dict[str, Any]:
        """One reading of the engine's statistics, at once."""
        with refusals():
            answer: dict[str, Any] = self._client.api.stats(str(container.id), stream=False, one_shot=True)
        return answer

    def stats_stream(self, container: Container) -> Generator[dict[str, Any], None, None]:
        """A reading a second for as long as the container runs."""
        # A client of its own: a stream that is read by another thread keeps its connection busy.
        client = _connect()
        try:
            with refusals():
                yield from client.api.stats(str(container.id), stream=True, decode=True)
        finally:
            client.close()


def execute(container: Container, command: list[str]) -> str:
    """Run a command as user postgres inside a running container; its output. Raises ClusterError if it fails."""
    with refusals():
        code, output = container.exec_run(command, user="postgres")
    assert isinstance(output, bytes)
    text = output.decode("utf-8", "replace")
    if code:
        raise ClusterError(f"{command[0]} failed inside the container (exit {code}): {text.strip()}")
    return text


def execute_beside(container: Container, network: str, command: list[str], environment: Mapping[str, str]) -> str:
    """Run a command as user postgres in a container of its own, on the files of one that is stopped; its output.

    Raises ClusterError if it fails.
    """
    return _beside(container, command, user="postgres", network=network, environment=dict(environment))


def execute_as_root(container: Container, folder: str, script: str) -> None:
    """Run a shell script as root in a folder of a container, running or not; root that may mount and change attributes.

    In one that runs, the script sees and makes the container's own mounts. Raises ClusterError if it fails, or if the
    engine may not grant as much.
    """
    command = ["sh", "-ec", f"cd {folder}\n{script}"]
    how: dict[str, Any] = {"cap_add": ["SYS_ADMIN", "SYS_PTRACE", "LINUX_IMMUTABLE"], "network_mode": "none"}
    how["security_opt"] = ["apparmor=unconfined"]
    if container.status == "running":
        # Not an exec inside: the engine filters its system calls, mount among them, whatever it is granted.
        command = ["nsenter", "--target", "1", "--mount", *command]
        how["pid_mode"] = f"container:{container.id}"
    _beside(container, command, user="root", **how)


def _beside(container: Container, command: list[str], **how: Any) -> str:
    with refusals():
        made = _connect().containers.create(
            str(container.attrs["Config"]["Image"]),
            command[1:],
            entrypoint=command[:1],
            volumes_from=[str(container.id)],
            labels={PROGRAM_LABEL: str(container.labels[LABEL])},
            **how,
        )
        try:
            made.start()
            code = int(made.wait()["StatusCode"])
            said, complained = made.logs(stderr=False), made.logs(stdout=False)
        finally:
            made.remove(force=True, v=True)
    if code:
        words = complained.decode("utf-8", "replace").strip()
        raise ClusterError(f"{command[0]} failed (exit {code}): {words}")
    return said.decode("utf-8", "replace")


def exists(container: Container, path: str) -> bool:
    """Whether a file exists inside a container, running or not."""
    with refusals():
        try:
            container.get_archive(path)
        except NotFound:
            return False
    return True


def write(container: Container, folder: str, name: str, text: str, owner: int = 0) -> None:
    """Put a file into a container, running or not; `owner` is user and group id in there."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(text.encode()), 0o644
        entry.uid = entry.gid = owner
        archive.addfile(entry, io.BytesIO(text.encode()))
    with refusals():
        container.put_archive(folder, packed.getvalue())


def read(container: Container, path: str) -> str | None:
    """The text of a file inside a container, running or not; None if there is none."""
    with refusals():
        try:
            chunks, _ = container.get_archive(path)
        except NotFound:
            return None
        packed = io.BytesIO(b"".join(chunks))
    with tarfile.open(fileobj=packed) as archive:
        content = archive.extractfile(archive.getmembers()[0])
        return content.read().decode() if content else None


@contextlib.contextmanager
def refusals(node: str | None = None) -> Iterator[None]:
    """Turn what the engine refuses into ClusterError, and an engine that is gone into ProviderUnavailable."""
    try:
        yield
    except NotFound as error:
        helps = advice("bring the cluster up again")
        raise ClusterError(f"{_words(error)}: it was removed", node=node, remedy=helps) from error
    except APIError as error:
        reason = f"the Docker engine refuses: {_words(error)}"
        raise ClusterError(reason, node=node, remedy=_remedies(error)) from error
    except (DockerException, requests.exceptions.RequestException) as error:
        raise ProviderUnavailable(
            f"the Docker engine does not answer any more ({error})",
            node=node,
            remedy=advice("start it and try again"),
        ) from error


@dataclass(frozen=True)
class _Endpoint:
    """Where the engine is, and what says so."""

    host: str
    named_by: str
    tls: TLSConfig | bool = False


def _connect() -> docker.DockerClient:
    endpoint = _endpoint()
    _check_near(endpoint)
    try:
        if os.environ.get("DOCKER_HOST"):
            return docker.DockerClient.from_env(timeout=TIMEOUT_S)
        return docker.DockerClient(base_url=endpoint.host, tls=endpoint.tls, version="auto", timeout=TIMEOUT_S)
    except (DockerException, requests.exceptions.RequestException) as error:
        raise _no_engine(f"{endpoint.named_by}, {endpoint.host}: {' '.join(str(error).split())}") from error


def _endpoint() -> _Endpoint:
    """As the docker command finds it: DOCKER_HOST, then DOCKER_CONTEXT, then the context in use."""
    if host := os.environ.get("DOCKER_HOST"):
        return _Endpoint(host, "DOCKER_HOST")
    try:
        name = os.environ.get("DOCKER_CONTEXT") or get_current_context_name()
        context = docker.ContextAPI.get_context(name)
    except (DockerException, ValueError) as error:
        raise _no_engine(f"the context in use cannot be read: {error}") from error
    if context is not None and context.Host:
        tls = context.TLSConfig
        return _Endpoint(str(context.Host), f"context {name}", tls if isinstance(tls, TLSConfig) else False)
    # The SDK finds contexts only beside a config.json, which `docker context create` does not write.
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    kept = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    if not kept.exists():
        known = Remedy("list_contexts", "shows those there are")
        raise _no_engine(f"there is no context {name}", known)
    return _Endpoint(json.loads(kept.read_text(encoding="utf-8"))["Endpoints"]["docker"]["Host"], f"context {name}")


def _check_near(endpoint: _Endpoint) -> None:
    """Raises ProviderUnavailable for an engine on another machine."""
    parts = urlsplit(endpoint.host)
    if parts.scheme in ("unix", "http+unix", "npipe") or parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return
    if parts.scheme in ("ssh", "tcp", "http", "https"):
        raise ProviderUnavailable(
            f"the Docker engine at {endpoint.host} ({endpoint.named_by}) is on another machine, where neither "
            "configs/postgresql/ nor the nodes' ports on 127.0.0.1 can be reached",
            remedy=[
                advice("take an engine on this machine"),
                advice("run labkit on that one"),
                advice("use the provider attach for servers that run there"),
            ],
        )


def _no_engine(why: str, *remedies: Remedy) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"no Docker engine answers ({why})",
        remedy=[
            *remedies,
            advice("start Docker"),
            setting("DOCKER_HOST", "the address of an engine that runs"),
            Remedy("use_context", "takes the engine that it names", context="CONTEXT"),
            EMBEDDED,
        ],
    )


def _networks(container: Container) -> Mapping[str, Any]:
    container.reload()
    found: Mapping[str, Any] = container.attrs["NetworkSettings"]["Networks"]
    return found


def _words(error: APIError) -> str:
    return str(error.explanation or error).strip()


def _remedies(error: APIError) -> list[Remedy]:
    if "port is already allocated" in _words(error) or "address already in use" in _words(error):
        others = Remedy("recreate", "on other ports", name="NAME", provider="docker", base_port=0)
        return [advice("end the process that holds the port"), others]
    return []
