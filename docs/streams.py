"""Tables of docs/events.md, from results/events.json and from the settings themselves."""

from __future__ import annotations

from collections.abc import Callable

from docs.tables import record
from prerank.stream import Waiting


def logs() -> str:
    """Messages a second of each log."""
    found = record("events")
    if found is None:
        return ""
    lines = ["| log | messages an append | appended / s | appended / CPU-s | read / s | read / CPU-s |", "|---|---|---|---|---|---|"]
    for name, batches in found["results"]["logs"].items():
        for batch, n in batches.items():
            cells = (f"{n[key]:,.0f}" for key in ("append_per_s", "append_per_cpu_s", "read_per_s", "read_per_cpu_s"))
            lines.append(f"| {name} | {batch.removeprefix('batch ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def joined() -> str:
    """Rows a CPU-second of label waiting, alone and as a process."""
    found = record("events")
    if found is None:
        return ""
    results = found["results"]
    lines = ["| label waiting | rows / CPU-s | most impressions in memory |", "|---|---|---|"]
    lines += [f"| {name} | {n['rows_per_cpu_s']:,.0f} | {n['most_in_memory']:,.0f} |" for name, n in results["waiting"].items()]
    whole = results["process"]
    lines.append(f"| `prerank events wait`, SQLite to SQLite, click=10m | {whole['rows_per_cpu_s']:,.0f} | |")
    lines.append(f"| a trainer's reading of rows, SQLite | {whole['taken_per_cpu_s']:,.0f} | |")
    size, message = results["bytes_a_waiting_impression"], results["bytes_a_message"]
    return "\n".join(lines) + f"\n\nA waiting impression takes {size:,.0f} bytes, about {message:,.0f} of them its message."


def settings() -> str:
    """Every setting of label waiting."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in Waiting.model_fields.items():
        default = "" if field.is_required() else str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        lines.append(f"| `{name}` | {'none' if default == 'None' else default} | {field.description} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {"event-logs": logs, "label-waiting": joined, "waiting-settings": settings}
