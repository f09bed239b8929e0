"""The table of budgets: what was measured, what must hold, and whether it does."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Result


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `budget` is `< 5 ms` in words; `holds` None where the row only informs."""

    name: str
    value: float
    unit: str
    budget: str = ""
    holds: bool | None = None
    note: str = ""


@dataclass
class Report:
    """Rows in the order in which they were measured."""

    rows: list[Row] = field(default_factory=list)

    def below(self, name: str, value: float, limit: float, unit: str = "ms", note: str = "") -> None:
        self.rows.append(Row(name, value, unit, f"< {limit:g} {unit}", value < limit, note))

    def at_least(self, name: str, value: float, limit: float, unit: str = "x", note: str = "") -> None:
        self.rows.append(Row(name, value, unit, f">= {limit:g} {unit}", value >= limit, note))

    def at_most(self, name: str, value: float, limit: float, unit: str = "x", note: str = "") -> None:
        self.rows.append(Row(name, value, unit, f"<= {limit:g} {unit}", value <= limit, note))

    def tells(self, name: str, value: float, unit: str, note: str = "") -> None:
        self.rows.append(Row(name, value, unit, note=note))

    def load(self, name: str, result: Result, cpu: dict[str, float]) -> None:
        """Throughput and latency of one load, with CPU seconds used by each process while it ran."""
        operations = max(1, len(result.latencies))
        used = ", ".join(f"{who} {spent / operations * 1e6:.0f}" for who, spent in cpu.items())
        note = f"p50 {result.percentile(0.5) * 1e3:.2f} ms, p99 {result.percentile(0.99) * 1e3:.2f} ms"
        note += f"; CPU us/op: {used}" if used else ""
        note += f"; {result.errors} ERRORS" if result.errors else ""
        self.rows.append(Row(name, result.rate, "/s", note=note))

    def table(self) -> str:
        """The rows as text, one a line."""
        lines = [f"{'figure':<58}{'value':>12} {'unit':<5} {'budget':<13} {'':<5} note"]
        for row in self.rows:
            verdict = "" if row.holds is None else ("ok" if row.holds else "MISS")
            lines.append(f"{row.name:<58}{row.value:>12.4g} {row.unit:<5} {row.budget:<13} {verdict:<5} {row.note}")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        rows = [{name: getattr(row, name) for name in Row.__slots__} for row in self.rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")

    @property
    def misses(self) -> list[Row]:
        return [row for row in self.rows if row.holds is False]
