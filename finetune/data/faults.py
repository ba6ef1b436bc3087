"""Mistakes in data are gathered, up to a limit, so that a reader mends a file in one go."""

from __future__ import annotations

from finetune.errors import UserError

LIMIT = 20


def shown(text: object, width: int = 60) -> str:
    """Return a value as one line of about `width` characters, text in quotation marks."""
    line = str(text)
    line = line if len(line) <= width else line[: width - 1] + "…"
    line = "".join(character if character.isprintable() else escaped(character) for character in line)
    return f'"{line}"' if isinstance(text, str) else line


def escaped(character: str) -> str:
    """Return a character that cannot be printed as its escape."""
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\u{ord(character):04x}")


def listed(names: object, width: int = 8) -> str:
    """Return names, quoted and separated by commas, cut after `width` of them."""
    known = [shown(name, 40) for name in names]  # type: ignore[attr-defined]
    return ", ".join(known[:width]) + (f", … ({len(known)} in all)" if len(known) > width else "")


class Faults:
    """Up to `limit` mistakes, raised together as one UserError of one line."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._found: list[tuple[int, int, str, str]] = []  # order of the file, line, place, message
        self._files: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, file: str, line: int | None, message: str) -> None:
        """Note a mistake in a file, or at a line (from 1) of it; raises at once when the limit is reached."""
        place = file if line is None else f"{file}:{line}"
        order = self._files.setdefault(file, len(self._files))
        self._found.append((order, line or 0, place, message))
        if len(self._found) >= self.limit:
            self.raise_any()

    def add_at(self, row_id: str, message: str) -> None:
        """Note a mistake in the row "file:line", or in a file that is a row."""
        file, _, line = row_id.rpartition(":")
        if line.isdecimal():
            self.add(file, int(line), message)
        else:
            self.add(row_id, None, message)

    def raise_any(self) -> None:
        """Raise UserError if a mistake was noted: the first in full, the places of the others."""
        if not self._found:
            return
        found = sorted(self._found, key=lambda fault: fault[:2])
        line = f"{found[0][2]}: {found[0][3]}"
        if len(found) > 1:
            stopped = ", where reading stopped" if len(found) >= self.limit else ""
            places = ", ".join(dict.fromkeys(fault[2] for fault in found[1:]))
            line += f"; and {len(found) - 1} more ({places}{stopped})"
        raise UserError(line)
