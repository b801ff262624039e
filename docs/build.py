"""Write what is generated in the docs: settings.md, the messages of bus.md, schemas/*.json. `make docs` runs it."""

from __future__ import annotations

from pathlib import Path

from common import messages, schemas, settings

HERE = Path(__file__).parent
BEGIN, END = "<!-- messages: generated, see docs/build.py -->", "<!-- end of messages -->"


def with_messages(page: str) -> str:
    """docs/bus.md with the message table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{messages.render_markdown()}\n{END}{after}"


def main() -> None:
    """Write the pages and the schemas."""
    (HERE / "settings.md").write_text(settings.render_markdown())
    bus = HERE / "bus.md"
    bus.write_text(with_messages(bus.read_text()))
    for name, make in schemas.FILES.items():
        (HERE / "schemas" / name).write_text(schemas.render(make()))


if __name__ == "__main__":
    main()
