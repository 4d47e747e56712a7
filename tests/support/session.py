"""A page's examples, carried out one after another against a service, as a reader would: GraphQL with its variables,
shell commands, Python, JavaScript; and each held against what the page shows.

    ```graphql              an operation; with `open`, a subscription that stays open while the page goes on
    ```json variables       its variables
    ```json answer          what a query or a mutation answers
    ```json events          what a subscription tells, some of its events in order; of the open one, if there is one
    ```console              commands after `$ `, each with what it prints, or nothing if that is not the point
    ```yaml NAME            a file
    ```python, js           a program, and what it prints in the ```text after it

A query, or a command that only reads, is tried until it answers as shown: a page that says "a moment later" means it.
A block of any other kind fails: what is not tried is not shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport
from graphql import OperationDefinitionNode, parse
from live import CLIENT, PATIENCE_SECONDS, ROOT, Service, eventually, http
from pages import Block, Likeness, Unlike, blocks, output_like, values_in

ADDRESS = "//localhost:8000"
PROGRAM_SECONDS = 180  # a bound for what takes seconds on a machine that does nothing else
READS = re.compile(r"\bsimulations (show|list)\b")
COMMENT = re.compile(r"\s{2,}# .*$")
CONTINUED = "\\"
BIN = Path(sys.executable).parent
CURVE = "convergence("  # its first event comes at once
SUBSCRIPTIONS = re.compile(r"^simulations_subscribers\{.*\} (\S+)$", re.MULTILINE)


class Session:
    """One reader of one page."""

    def __init__(self, service: Service, home: Path, not_run: Mapping[str, str]) -> None:
        """not_run: commands that a page shows and this can't run, and where they are run instead."""
        (home / "examples").symlink_to(ROOT / "examples")  # what else a reader finds where they are
        self.likeness = Likeness()
        self.ran: list[Block] = []
        self._service = service
        self._home = home
        self._not_run = not_run
        self._operation: Block | None = None
        self._variables: dict[str, Any] = {}
        self._program: str | None = None
        self._open: asyncio.Task[None] | None = None
        self._told: asyncio.Queue[Any] = asyncio.Queue()

    async def read(self, page: Path) -> None:
        """Do all that a page shows. Raises with the line of what is not as it is shown."""
        try:
            for block in blocks(page):
                try:
                    await self._do(block)
                except Exception as error:
                    error.add_note(f"{page.relative_to(ROOT)}:{block.line}")
                    raise
                self.ran.append(block)
            assert self._operation is None, f"{page.name}: the last operation has no answer"
        finally:
            if self._open is not None:
                self._open.cancel()
                await asyncio.gather(self._open, return_exceptions=True)

    async def _do(self, block: Block) -> None:
        match block.language, block.words:
            case "graphql", words:
                assert self._operation is None, "the operation before it has no answer"
                self._operation, self._variables = block, {}
                if words:
                    assert words == ("open",), words
                    await self._leave_open()
            case "json", ("variables",):
                assert self._operation is not None
                self._variables = self.likeness.values(json.loads(block.text))
            case "json", ("answer",):
                await self.answer(block)
            case "json", ("events",):
                await self.events(block)
            case "console", ():
                await self.commands(block)
            case "yaml", (name,):
                (self._home / name).write_text(block.text + "\n")
            case "python" | "js", ():
                self._program = await self.program(block)
            case "text", ():
                assert self._program is not None, "nothing printed this"
                output_like(block.text, self._program, self.likeness)
                self._program = None
            case _:
                raise AssertionError(f"a block that is not tried: {block.language} {' '.join(block.words)}")

    # --- GraphQL -------------------------------------------------------------------------------------------------

    async def answer(self, block: Block) -> None:
        operation, self._operation = self._operation, None
        assert operation is not None, "an answer to nothing"
        [shown] = values_in(block.text)
        may_repeat = kind(operation.text) == "query"
        async with asyncio.timeout(PATIENCE_SECONDS), http() as client:
            while True:
                body = await self._post(client, operation)
                try:
                    self.likeness.compare(shown, body if "errors" in body or "errors" in shown else body["data"])
                    return
                except Unlike:
                    if not may_repeat:
                        raise
                await asyncio.sleep(0.05)

    async def _post(self, client: Any, operation: Block) -> Any:
        sent = {"query": self.likeness.real(operation.text), "variables": self._variables}
        body = (await client.post(f"{self._service.address}/graphql", json=sent)).json()
        body.pop("extensions", None)
        return body

    async def events(self, block: Block) -> None:
        """All that is shown comes, in this order; and if the last one shown is the end, nothing comes after it."""
        shown = values_in(block.text)
        left = list(shown)
        if self._operation is not None:
            await self._leave_open()
        assert self._open is not None, "no subscription is open"
        seen = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while left:
                event = await self._told.get()
                if event is None:
                    raise Unlike(f"it completed, and this never came: {left[0]!r}\ncame: {seen}")
                seen.append(event)
                with suppress(Unlike):
                    self.likeness.compare(left[0], event, is_event=True)
                    left.pop(0)
            if is_end(shown[-1]):
                assert await self._told.get() is None, "something came after the end"
        self._open.cancel()
        await asyncio.gather(self._open, return_exceptions=True)
        self._open = None

    async def _leave_open(self) -> None:
        """Subscribe, and wait until it has begun: until its first event, or until the service counts it."""
        operation, self._operation = self._operation, None
        assert operation is not None
        assert self._open is None, "one open subscription at a time"
        self._told = asyncio.Queue()
        before = await self._subscriptions()
        opened = self._open = asyncio.create_task(self._listen(operation, self._variables))
        is_told_first = CURVE in operation.text

        async def has_begun() -> bool:
            if opened.done() or not self._told.empty():
                return True
            return not is_told_first and await self._subscriptions() > before

        await eventually(has_begun, "the subscription begins")

    async def _subscriptions(self) -> float:
        async with http() as client:
            metrics = (await client.get(f"{self._service.address}/metrics")).text
        return sum(map(float, SUBSCRIPTIONS.findall(metrics)))

    async def _listen(self, operation: Block, variables: dict[str, Any]) -> None:
        url = f"ws:{self._service.address.partition(':')[2]}/graphql"
        async with Client(transport=WebsocketsTransport(url)) as session:
            request = GraphQLRequest(self.likeness.real(operation.text), variable_values=variables)
            async for event in session.subscribe(request):
                self._told.put_nowait(event)
        self._told.put_nowait(None)

    # --- programs ------------------------------------------------------------------------------------------------

    async def commands(self, block: Block) -> None:
        for command, shown in commands_in(block.text):
            if command in self._not_run:
                continue
            reads = READS.search(command) is not None
            async with asyncio.timeout(PROGRAM_SECONDS):
                while True:
                    printed = await self._run(["bash", "-c", self._at_home(command)], may_fail=bool(shown))
                    try:
                        if shown:
                            output_like(shown, printed, self.likeness)
                        break
                    except Unlike:
                        if not reads:
                            raise
                    await asyncio.sleep(0.05)

    async def program(self, block: Block) -> str:
        """Run a program of the page; what it prints."""
        if block.language == "python":
            return await self._run([sys.executable, "-c", self._at_home(block.text)])
        (self._home / "node_modules").unlink(missing_ok=True)
        (self._home / "node_modules").symlink_to(CLIENT / "node_modules")
        (self._home / "page.mjs").write_text(self._at_home(block.text))
        node = shutil.which("node", path=f"{os.environ['PATH']}:{BIN}")
        assert node is not None, "node is missing: make test installs it"
        return await self._run([node, str(self._home / "page.mjs")])

    def _at_home(self, text: str) -> str:
        """What a reader types, with the ids and the address of this service."""
        here = self._service.address.partition(":")[2]
        return self.likeness.real(text).replace(ADDRESS, here).replace(".venv/bin/", f"{BIN}/")

    async def _run(self, arguments: Sequence[str], *, may_fail: bool = False) -> str:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=self._home,
            env={
                **self._service.environment,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "HOME": str(self._home),
                "SIMULATIONS_URL": self._service.address,
                "COLUMNS": "120",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PROGRAM_SECONDS):
            output, _ = await process.communicate()
        assert may_fail or process.returncode == 0, f"{' '.join(arguments)}\n{output.decode()}"
        return output.decode()


def commands_in(text: str) -> list[tuple[str, str]]:
    """Each command of a console block, with what is shown behind it; a comment behind a command is left out."""
    found: list[tuple[str, str]] = []
    command: list[str] = []
    output: list[str] = []
    for line in text.splitlines():
        if command and not output and (command[-1].endswith(CONTINUED) or _is_open("\n".join(command))):
            command.append(re.sub(COMMENT, "", line))
        elif line.startswith("$ "):
            if command:
                found.append(("\n".join(command), "\n".join(output)))
            command, output = [re.sub(COMMENT, "", line[2:])], []
        else:
            assert command, f"no command before {line!r}"
            output.append(line)
    if command:
        found.append(("\n".join(command), "\n".join(output)))
    return found


def kind(operation: str) -> str:
    [definition] = [each for each in parse(operation).definitions if isinstance(each, OperationDefinitionNode)]
    return definition.operation.value


def is_end(event: Any) -> bool:
    """Whether this event of a convergence is its last."""
    [told] = event.values()
    return "cursor" in told and told.get("state") in ("FINISHED", "FAILED", "CANCELLED") and not told.get("series")


def _is_open(command: str) -> bool:
    """Whether a quote was opened and not closed."""
    quote = ""
    for character in re.sub(r"\\.", "", command):
        if quote == character:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    return bool(quote)
