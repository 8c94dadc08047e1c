"""Tables that can be sorted by a click on a heading. Where scripts do not run, they are tables as all others."""

from collections.abc import Iterable, Sequence

from retrain.report.html import Markup, table, tag

# The one script of a page. It makes a button of each heading, moves rows and writes no HTML: names stay the text they are.
# What has no value comes last in both directions; rows that are equal stay in their order.
SCRIPT = """
const words = new Intl.Collator("en", { numeric: true });
const compare = (one, other) => typeof one === "number" ? one - other : words.compare(one, other);
const value = (row, at) => {
  const cell = row.cells[at], given = cell.dataset.value;
  return given === undefined ? cell.textContent : given === "" ? null : Number(given);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const sort = (head, at) => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: value(row, at) }));
    const known = rows.filter((one) => one.value !== null), others = rows.filter((one) => one.value === null);
    known.sort((one, other) => sign * compare(one.value, other.value));
    table.tBodies[0].append(...[...known, ...others].map((one) => one.row));
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  };
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, at));
    head.append(button);
  });
}
""".strip()


def sortable(
    caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], wide: bool = False, kind: str = ""
) -> Markup:
    """Return a table as `html.table` does, that can be sorted by each column. Its page needs SCRIPT.

    A column is sorted by its text, or by numbers where its cells are made with `number` or have a value otherwise.
    """
    return table(caption, head, rows, wide, f"sortable {kind}".rstrip())


def number(text: object, value: float | None) -> Markup:
    """Return a cell that is sorted by a number, None for unknown, and shows a text."""
    return tag("td", text, data_value="" if value is None else value)
