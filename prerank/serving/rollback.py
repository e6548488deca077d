"""Back to an earlier generation: current.json names it, and says that this was meant."""

from __future__ import annotations

from pathlib import Path

from prerank.serving.delta import deltas
from prerank.serving.generation import PREFIX, Generation, GenerationError, current, generations, locked, point
from prerank.serving.live import pointer


def back(folder: Path, to: str | None = None) -> str:
    """Put a generation in force without its deltas; what was done, in a line. Raises GenerationError: there is none, or it is not whole.

    to   'gen-000012' or '12'; None: the newest that is older than the one in force
    """
    now = current(folder)
    with locked(folder):
        kept = generations(folder)
        if to is None:
            older = [p for p in kept if p.name < now.name]
            if not older:
                raise GenerationError(f"generation folder '{folder}': no generation is older than {now.name}, which is in force")
            chosen = older[-1]
        else:
            name = f"{PREFIX}{int(to):06d}" if to.isdigit() else to
            chosen = folder / name
            if chosen not in kept:
                raise GenerationError(f"generation folder '{folder}': must be one of {', '.join(p.name for p in kept)}; got '{to}'")
        Generation(chosen)  # whole, or nothing is changed
        dropped = len(deltas(folder, int(chosen.name[len(PREFIX) :]))) if chosen == now and pointer(folder).upto != 0 else 0
        if chosen == now and not dropped:
            return f"{chosen.name} is in force already; nothing changed"
        point(folder, chosen.name, rolled_back_from=now.name, upto=0)
    if chosen == now:
        return f"{chosen.name} is in force as it was exported, without its {dropped} delta{'s' if dropped > 1 else ''}"
    return f"{chosen.name} is in force, {now.name} was"
