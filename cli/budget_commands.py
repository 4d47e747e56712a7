"""Commands of `simulations budget` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, terminal
from cli.group import ListsByDefault
from cli.options import AsJson, Token, TokenFile, Url

EPILOG = """
\b
Examples:
  simulations budget create 500 --project vision              500 a month
  simulations budget create 40 --project vision --period day  and 40 a day
  simulations budget create 2000                              for the whole installation
  simulations budget update ID 750

Simulations that a budget does not pay for wait, with the reason BUDGET_EXHAUSTED; running ones are stopped before it
is used up. Amounts are in the installation's currency.
"""

app = typer.Typer(
    help="List, create, change and delete budgets of projects and of the installation.",
    cls=ListsByDefault,
    epilog=EPILOG,
    rich_markup_mode=None,
)

BudgetId = Annotated[str, typer.Argument(metavar="ID", help="Id of the budget: simulations budget list")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="What may be spent in each period: 500, 12.50.")]


@app.command("list")
def list_(
    project: Annotated[
        str | None,
        typer.Option("--project", metavar="NAME", help="Only of this project.", autocompletion=completion.projects),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List budgets, with what was spent of each in its current period."""
    from cli import costs
    from cli.requests import budgets, project_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    found = list(budgets(server, project=project_id(server, project) if project is not None else None))
    if as_json:
        terminal.print_json([each.as_json() for each in found])
    elif not found:
        terminal.say("No budgets. Create one: simulations budget create --help")
    else:
        costs.print_budgets(found)


@app.command()
def create(
    amount: Amount,
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            metavar="NAME",
            help="Whose budget it is.  [the whole installation's]",
            autocompletion=completion.projects,
        ),
    ] = None,
    period: Annotated[
        str, typer.Option(metavar="PERIOD", help="When it begins anew: day, week, month, or total (never).")
    ] = "month",
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Create a budget."""
    from cli import costs
    from cli.requests import create_budget, project_id
    from cli.server import parse_server

    wanted: dict[str, object] = {"amount": amount, "period": costs.parse_period(period)}
    server = parse_server(url, token, token_file)
    if project is not None:
        wanted["project"] = project_id(server, project)
    made = create_budget(server, wanted)
    if as_json:
        terminal.print_json(made.as_json())
    else:
        terminal.print_line(terminal.clean(made.id))
        terminal.say(costs.budget_sentence(made))


@app.command()
def update(
    budget: BudgetId,
    amount: Amount,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Change the amount of a budget. What waits for it is considered again."""
    from cli import costs
    from cli.requests import update_budget
    from cli.server import parse_server

    changed = update_budget(parse_server(url, token, token_file), {"id": budget, "amount": amount})
    if as_json:
        terminal.print_json(changed.as_json())
    else:
        terminal.print_line(f"{terminal.clean(changed.id)}  {costs.budget_sentence(changed)}")


@app.command()
def delete(
    budgets: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of budgets.")],
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Delete budgets: nothing waits or is stopped for them any longer."""
    from cli.change import delete_budgets
    from cli.server import parse_server

    raise typer.Exit(delete_budgets(parse_server(url, token, token_file), budgets))
