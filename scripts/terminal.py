"""Tables of text in the terminal."""

from pandas import DataFrame
from rich.console import Console
from rich.table import Table


def print_table(rows: DataFrame, title: str = "", caption: str = "") -> None:
    """Print cells of text as wide as they need: a terminal may wrap a line, a number may not be cut."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in rows:
        table.add_column(heading, justify="right" if table.columns else "left", no_wrap=True)
    for row in rows.to_numpy().tolist():
        table.add_row(*row)
    console = Console()
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, needed)
    console.print(table)
