"""Tables for `rich`: how they look, and how they are printed."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_LONGEST_NAME = 49  # characters; files have names as they are


def new_table(title: str, caption: str | None = None, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> Table:
    """Returns a table for `rich` with columns of text and of numbers, and no rows."""
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for header in texts:
        table.add_column(header, no_wrap=True)
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def short(name: str) -> str:
    """Returns a name as tables and figures show it: on one line, and without the middle where it is long."""
    line = " ".join(name.split()) if "\n" in name else name
    half = (_LONGEST_NAME - 3) // 2
    return line if len(line) <= _LONGEST_NAME else f"{line[:half]}...{line[-half:]}"


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Prints tables in full width, where rich would cut cells short."""
    console = console or Console()
    unbounded = console.options.update(max_width=1000)
    console.width = max([console.width, *(Measurement.get(console, unbounded, table).maximum for table in tables)])
    for table in tables:
        console.print(table)
