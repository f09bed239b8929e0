"""`bas config`: every budget and setting, its value, where it came from, and what it means."""

import json
import os
import shutil
import textwrap
from dataclasses import asdict, dataclass

import click

from chassis.config import SETTINGS, Config, Setting, load, show


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it is shown; `source` is default, file or environment."""

    variable: str
    value: str
    source: str
    meaning: str
    accepted: str


def rows(config: Config) -> list[Row]:
    """Every setting, in the order of the sections; a secret that is set is masked."""
    return [_row(config, setting) for setting in SETTINGS.values()]


def _row(config: Config, setting: Setting) -> Row:
    value = show(getattr(getattr(config, setting.section), setting.name))
    return Row(
        variable=setting.variable,
        value="***" if setting.secret and value else value,
        source=config.sources.get(setting.variable, "default"),
        meaning=setting.meaning,
        accepted=setting.accepted(),
    )


def table(shown: list[Row], width: int) -> str:
    """The rows as text of at most `width` columns where the meaning can be wrapped."""
    names = max(len(row.variable) for row in shown)
    values = min(24, max(len(row.value) for row in shown))
    indent = names + values + 17
    lines = [f"{'SETTING':<{names}}  {'VALUE':<{values}}  {'FROM':<11}  MEANING"]
    for row in shown:
        head = f"{row.variable:<{names}}  {row.value or '-':<{values}}  {row.source:<11}  "
        text = textwrap.wrap(f"{row.meaning} ({row.accepted})", max(30, width - indent))
        lines.append(head + text[0])
        lines.extend(" " * indent + more for more in text[1:])
    return "\n".join(lines)


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a setting.")
def command(*, as_json: bool) -> None:
    """Show every budget and setting: its value, where it came from, what it means, what it accepts.

    A setting is changed by its environment variable, or as `name = value` under its section in the TOML file that
    BAS_CONFIG_FILE names; the environment wins.

    \b
    Example:
      BAS_GATEWAY_PORT=9090 bas config | grep GATEWAY
    """
    shown = rows(load(os.environ))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in shown], indent=2))
    else:
        click.echo(table(shown, shutil.get_terminal_size((120, 24)).columns))
