"""Checks of Ray clusters by `simulations doctor`: token, certificate, answer, nodes, and the way back to the API.

Only asks. Run from where the scheduler runs; whether nodes reach the API, only a node could try.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx

from cli.terminal import clean
from settings import RayCluster, Settings, SettingsError

Found = tuple[str, str, str, str]  # check, level, sentence, advice

ANSWER_SECONDS = 10.0
NODES = {"detail": "1", "limit": "10000"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def examine(settings: Settings) -> Iterator[Found]:
    """Check each cluster of the settings."""
    try:
        clusters = settings.read_ray_clusters()
    except SettingsError as error:
        for line in str(error).splitlines():
            yield ("clusters", "problem", line, "Correct the file; docs/clusters.md shows one.")
        return
    for cluster in clusters:
        yield from _examine(cluster, settings.api_url)


def _examine(cluster: RayCluster, api_url: str) -> Iterator[Found]:
    check = f"cluster {cluster.name}"
    try:
        token, context = cluster.read_token(), cluster.tls()
    except SettingsError as error:
        yield (check, "problem", str(error), "Correct the file that it names.")
        return
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(
            base_url=cluster.address, headers=headers, verify=context, timeout=ANSWER_SECONDS, trust_env=False
        ) as client:
            answers = [client.get("/api/version"), client.get("/api/v0/nodes", params=NODES)]
        refused = next((answer for answer in answers if answer.status_code != 200), None)
        if refused is not None:
            yield _refusal(check, refused.status_code, has_token=token is not None)
            return
        version = clean(str(answers[0].json()["ray_version"]))
        nodes = [node for node in answers[1].json()["data"]["result"]["result"] if node["state"] == "ALIVE"]
        usable = sum(1 for node in nodes if node["resources_total"].get("CPU"))
    except httpx.HTTPError as error:
        why = clean(str(error)) or type(error).__name__
        advice = "Check its address, that the head runs, and for https `ca_file`."
        yield (check, "problem", f"{cluster.address} does not answer: {why}.", advice)
        return
    except (ValueError, LookupError, TypeError, AttributeError):
        advice = "Its `address` must be that of the head, with the port of Ray's dashboard (8265)."
        yield (check, "problem", f"{cluster.address} does not answer like a Ray cluster.", advice)
        return
    if usable:
        yield (check, "ok", f"Ray {version} at {cluster.address}: {usable} of {len(nodes)} nodes take work.", "")
    else:
        advice = "Start workers, or a head with --num-cpus."
        yield (check, "warning", f"Ray {version} at {cluster.address} has no node with CPUs.", advice)
    yield from _ways(check, cluster, cluster.api_url or api_url)


def _refusal(check: str, status: int, *, has_token: bool) -> Found:
    if status not in (401, 403):
        return (check, "problem", f"The cluster answered with status {status}.", "See the log of its dashboard.")
    if has_token:
        return (check, "problem", f"The cluster refuses the token ({status}).", "Correct `token_file`.")
    return (check, "problem", f"The cluster wants a token ({status}).", "Set `token_file`: see docs/clusters.md.")


def _ways(check: str, cluster: RayCluster, api_url: str) -> Iterator[Found]:
    is_here = urlsplit(cluster.address).hostname in LOOPBACK
    if urlsplit(api_url).hostname in LOOPBACK and not is_here:
        sentence = f"Its nodes are told to report to {api_url}, which is this host only."
        yield (check, "problem", sentence, "Set SIMULATIONS_PUBLIC_URL, or `api_url` of this cluster.")
    if cluster.shows_token:
        yield (check, "warning", "Its token crosses the network unencrypted.", "Use https, or a tunnel.")
    elif cluster.token_file is None and not is_here:
        sentence = "It wants no token: what reaches its dashboard may run programs on it."
        yield (check, "warning", sentence, "Start it with RAY_AUTH_MODE=token, and set `token_file`.")
