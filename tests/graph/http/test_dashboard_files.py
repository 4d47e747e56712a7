"""Dashboard files: addresses, caching, compression, and the answer before the pages are built."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from graph.http.dashboard_files import PAGES, default_places

Api = Any  # the fixtures of conftest.py

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SCRIPT = "/assets/index-AbCd1234.js"
ROUTES = Path(__file__).resolve().parents[3] / "web" / "src" / "routes.ts"


@pytest.fixture
def pages(pages_of_all: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(pages_of_all, tmp_path / "web"))


@pytest.mark.parametrize("path", ["/", "/simulations/U2ltOjE=", "/compare?ids=1,2", "/machines", "/submit"])
async def test_each_address_of_the_dashboard_is_the_same_page_asked_again_each_time(api: Api, path: str) -> None:
    response = await api.client.get(path, headers=BROWSER)
    assert (response.status_code, "<title>index</title>" in response.text) == (200, True)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    again = await api.client.get(path, headers={**BROWSER, "if-none-match": f'W/"x", {response.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]
    assert again.headers["content-security-policy"] == response.headers["content-security-policy"]


def test_the_server_knows_the_addresses_that_the_page_knows() -> None:
    of_page = re.findall(r"^\s*'(/[^']*)':", ROUTES.read_text(), re.MULTILINE)
    assert sorted(PAGES) == sorted(re.sub(r":(\w+)", r"{\1}", path) for path in of_page)


async def test_what_nothing_has_is_404_in_a_page_of_our_own_or_in_two_words(api: Api) -> None:
    for path in ("/nowhere", "/simulations/1/2", "/session/x"):
        response = await api.client.get(path, headers=BROWSER)
        assert (response.status_code, "<title>index</title>" in response.text) == (404, True)
        assert (await api.client.get(path)).text == "Not Found"
    assert (await api.client.get("/assets/index-Zz.js", headers={"accept": "*/*"})).status_code == 404
    assert (await api.client.post("/nowhere", headers=BROWSER)).text == "Not Found"
    assert (await api.client.post("/machines", headers=BROWSER)).status_code == 405


async def test_a_browser_gets_the_explorer_at_graphql_and_everybody_else_the_api(api: Api) -> None:
    response = await api.client.get("/graphql", headers=BROWSER)
    assert "<title>graphiql</title>" in response.text
    assert response.headers["vary"] == "Accept"
    assert (await api.client.get("/graphql?query={__typename}", headers=BROWSER)).json()["data"]
    assert (await api.client.get("/graphql", headers={"accept": "application/json"})).status_code == 400


@pytest.mark.parametrize(
    ("accepts", "gets"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, deflate", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.000", None),
        ("identity", None),
        ("deflate, zstd", None),
        ("", None),
    ],
)
async def test_scripts_are_sent_as_small_as_the_client_takes_them_and_kept_for_ever(
    api: Api, pages: Path, accepts: str, gets: str | None
) -> None:
    built = pages / "dist" / SCRIPT[1:]
    smaller = {"br": ".br", "gzip": ".gz", None: ""}[gets]
    async with api.client.stream("GET", SCRIPT, headers={"accept-encoding": accepts}) as response:
        body = b"".join([chunk async for chunk in response.aiter_raw()])
    assert response.status_code == 200
    assert body == built.with_name(built.name + smaller).read_bytes()
    assert response.headers.get("content-encoding") == gets
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-length"] == str(len(body))


async def test_each_encoding_has_a_tag_of_its_own(api: Api) -> None:
    tags = {}
    for encoding in ("br", "gzip", "identity"):
        head = await api.client.head(SCRIPT, headers={"accept-encoding": encoding})
        assert (head.status_code, head.content) == (200, b"")
        tags[encoding] = head.headers["etag"]
        known = {"accept-encoding": encoding, "if-none-match": tags[encoding]}
        assert (await api.client.get(SCRIPT, headers=known)).status_code == 304
    assert len(set(tags.values())) == 3


async def test_a_font_is_sent_as_it_is_and_the_icon_is_asked_for_again(api: Api) -> None:
    font = await api.client.get("/assets/icons-AbCd1234.ttf")
    assert (font.content, font.headers["content-type"]) == (b"letters", "font/ttf")
    assert "vary" not in font.headers
    icon = await api.client.get("/favicon.svg")
    assert (icon.headers["content-type"], icon.headers["cache-control"]) == ("image/svg+xml", "no-cache")
    assert (await api.client.get("/favicon.svg", headers={"if-none-match": icon.headers["etag"]})).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../index.html", "/assets/..%2findex.html", "/assets/%2e%2e/secret", "/assets/..%2f..%2fsecret",
        "/assets//etc/passwd", "/assets/%2fetc%2fpasswd", "/assets/..%5c..%5csecret", "/assets/secret%00.js",
        "/assets/linked.js", "/assets/.hidden", "/assets/index-AbCd1234.js.br", "/assets/", "/secret", "/index.html/..",
    ],
)  # fmt: skip
async def test_nothing_but_the_files_of_the_build_can_be_had(api: Api, pages: Path, path: str) -> None:
    (pages / "secret").write_text("secret")
    (pages / "dist" / "assets" / ".hidden").write_text("secret")
    (pages / "dist" / "assets" / "linked.js").symlink_to(pages / "secret")
    # httpx would tidy the path up
    response = await api.client.send(
        api.client.build_request("GET", "/", extensions={"target": path.encode()}), follow_redirects=False
    )
    assert response.status_code in (404, 307), response.text
    assert "secret" not in response.text


async def test_a_new_build_is_served_without_a_restart(api: Api, pages: Path) -> None:
    first = await api.client.get("/", headers=BROWSER)
    (pages / "dist").rename(pages / "old")
    assert (await api.client.get("/", headers=BROWSER)).status_code == 503
    assert (await api.client.get(SCRIPT)).status_code == 404
    (pages / "new" / "assets").mkdir(parents=True)
    (pages / "new" / "assets" / "index-New.js").write_text("new")
    (pages / "new" / "index.html").write_text("<title>a newer one</title>")
    (pages / "new").rename(pages / "dist")
    second = await api.client.get("/", headers={**BROWSER, "if-none-match": first.headers["etag"]})
    assert (second.status_code, second.text) == (200, "<title>a newer one</title>")
    assert (await api.client.get("/assets/index-New.js")).text == "new"
    assert (await api.client.get(SCRIPT)).status_code == 404


async def test_until_it_is_built_a_sentence_stands_in_for_each_page_and_is_loaded_again(api: Api, pages: Path) -> None:
    (pages / "dist").rename(pages / "old")
    for path in ("/", "/machines", "/graphql", "/nowhere"):
        response = await api.client.get(path, headers=BROWSER)
        assert response.status_code == 503
        assert response.headers["content-type"].startswith("text/plain")
        assert "make web" in response.text
        assert (response.headers["retry-after"], response.headers["refresh"]) == ("2", "2")
        assert "default-src 'none'" in response.headers["content-security-policy"]
    assert (await api.client.get("/graphql?query={__typename}")).json()["data"], "the API is there"


def test_in_a_checkout_the_pages_are_those_that_were_built_there() -> None:
    assert [path.parent.name for path in default_places()] == ["web", "graph"]
