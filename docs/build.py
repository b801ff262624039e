"""Write what is generated in the docs: settings.md, parts of bus.md and better-auth.md, schemas/*.json. `make docs`."""

from __future__ import annotations

from pathlib import Path

from watchout.common import database_url, messages, schemas, settings

HERE = Path(__file__).parent
BEGIN, END = "<!-- messages: generated, see docs/build.py -->", "<!-- end of messages -->"

OPTIONS_BEGIN, OPTIONS_END = "<!-- options: generated, see docs/build.py -->", "<!-- end of options -->"


def with_options(page: str) -> str:
    """docs/better-auth.md with the table of options of a database URL made anew."""
    before, _, rest = page.partition(OPTIONS_BEGIN)
    _, _, after = rest.partition(OPTIONS_END)
    return f"{before}{OPTIONS_BEGIN}\n\n{database_url.render_markdown()}\n{OPTIONS_END}{after}"


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
    better_auth = HERE / "better-auth.md"
    better_auth.write_text(with_options(better_auth.read_text()))
    for name, make in schemas.FILES.items():
        (HERE / "schemas" / name).write_text(schemas.render(make()))


if __name__ == "__main__":
    main()
